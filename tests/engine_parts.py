"""What a test's engine is made of, from Maven Central and PyPI: a job server of Beam, and the engine of its version."""

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

GROUP = "org.apache.beam"
MAVEN_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
# Where Maven cannot deliver the job server of the SDK's version: the newest version of which it was seen to deliver the
# same classes, unpacked, with everything that they need. Its protocol is the SDK's, only older.
OLDER = "2.54.0"
FLINK, OLDER_FLINK = "1.20", "1.16"
LOGGER = ("org.slf4j", "slf4j-simple", "1.7.30")  # or Flink would be silent
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tests</groupId><artifactId>job-server</artifactId><version>1</version><dependencies>{}</dependencies></project>
"""
DEPENDENCY = """
<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"""
_SPARK_CORE = re.compile(r"<artifactId>spark-core_2\.1\d</artifactId>\s*<version>([\d.]+)</version>")


class PartsError(Exception):
    """Something that the test needs cannot be had here; the message says what, and what was tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Where everything lies."""

    version: str  # of the job server
    jar: Path
    engine: str  # its name and version
    home: Path  # where the engine's own jars and scripts are


def gather_spark(cache: Path) -> Parts:
    """Fetch what is not there yet. PartsError where it cannot be had."""
    need_programs()
    version = metadata.version("apache-beam")
    jar = cache / f"beam-runners-spark-3-job-server-{version}.jar"
    artifact = f"{GROUP}:beam-runners-spark-3-job-server:{version}"
    failed = "" if jar.exists() else maven("copy", f"-Dartifact={artifact}", f"-DoutputDirectory={cache}")
    if not failed:
        spark = spark_of(jar)
        return Parts(version=version, jar=jar, engine=f"Spark {spark}", home=pyspark(cache, spark))
    tell_of_older(f"Maven cannot deliver {artifact}:\n{failed}")
    folder = classes(cache, "spark-3", OLDER)
    spark = spark_of_classes(folder)
    home = pyspark(cache, spark)
    # Spark's jars come before the runner's, as in every executor: both bring some of the same libraries.
    jars = [*sorted((home / "jars").glob("*.jar")), *sorted(folder.glob("*.jar"))]
    index = write_index(cache / f"{folder.name}.jar", jars, "org.apache.beam.runners.spark.SparkJobServerDriver")
    return Parts(version=OLDER, jar=index, engine=f"Spark {spark}", home=home)


def gather_flink(cache: Path) -> Parts:
    """The same for Flink, which comes with the runner's classes."""
    need_programs()
    version, flink = metadata.version("apache-beam"), FLINK
    try:
        folder = classes(cache, f"flink-{flink}", version, LOGGER)
    except PartsError as error:
        tell_of_older(str(error))
        version, flink = OLDER, OLDER_FLINK
        folder = classes(cache, f"flink-{flink}", version, LOGGER)
    jars = sorted(folder.glob("*.jar"))
    index = write_index(cache / f"{folder.name}.jar", jars, "org.apache.beam.runners.flink.FlinkJobServerDriver")
    (core,) = folder.glob("flink-core-*.jar")
    exact = core.stem.removeprefix("flink-core-")
    return Parts(version=version, jar=index, engine=f"Flink {exact}", home=folder)


def need_programs() -> None:
    """PartsError where there is no Java, or no Maven."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise PartsError(f"there is no {program!r} on the PATH")


def tell_of_older(why: str) -> None:
    print(f"{why}\nClasses of {OLDER} take its place: an older job server than users have.", file=sys.stderr)


def classes(cache: Path, runner: str, version: str, *more: tuple[str, str, str]) -> Path:
    """A job server in pieces: the runner's jars, and all that they need."""
    folder = cache / f"{runner}-{version}"
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        wanted = [(GROUP, name, version) for name in (f"beam-runners-{runner}", "beam-runners-java-job-service")]
        (folder / "pom.xml").write_text(POM.format("".join(DEPENDENCY.format(*names) for names in [*wanted, *more])))
        into = f"-DoutputDirectory={folder}"
        failed = maven("copy-dependencies", "-f", str(folder / "pom.xml"), "-DincludeScope=runtime", into)
        if failed:
            raise PartsError(f"Maven cannot deliver {GROUP}:beam-runners-{runner}:{version} in pieces:\n{failed}")
        (folder / "complete").touch()
    return folder


def write_index(path: Path, jars: Sequence[Path], driver: str) -> Path:
    """A jar that holds nothing but the places of others. It works as the one jar that users have, on one machine."""
    places = " ".join(jar.resolve().as_uri() for jar in jars)
    lines = ["Manifest-Version: 1.0", f"Main-Class: {driver}", f"Class-Path: {places}"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "".join(f"{folded(line)}\r\n" for line in lines))
    return path


def folded(line: str) -> str:
    """A line of a manifest has at most 72 bytes; what follows starts with a blank."""
    return "\r\n ".join([line[:70], *(line[i : i + 69] for i in range(70, len(line), 69))])


def maven(goal: str, *arguments: str) -> str:
    """Run a goal of Maven's plugin for dependencies; its first error, or nothing."""
    words = ["mvn", "-q", "-B", "-U", f"{MAVEN_PLUGIN}:{goal}", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900)
    _, _, error = done.stdout.partition("[ERROR] ")
    return "" if done.returncode == 0 else error.partition("\n")[0] or done.stderr or f"exit status {done.returncode}"


def spark_of(jar: Path) -> str:
    """The version of Spark inside the job server: cluster and driver must be of the same, to the last digit."""
    with zipfile.ZipFile(jar) as archive:
        properties = archive.read("spark-version-info.properties").decode()
    return dict(line.split("=", 1) for line in properties.splitlines() if "=" in line)["version"]


def spark_of_classes(folder: Path) -> str:
    """The version of Spark that the runner's classes were compiled for, from the description inside its jar."""
    (runner,) = folder.glob("beam-runners-spark-3-*.jar")
    with zipfile.ZipFile(runner) as archive:
        pom = archive.read("META-INF/maven/org.apache.beam/beam-runners-spark-3/pom.xml").decode()
    found = _SPARK_CORE.search(pom)
    if found is None:
        raise PartsError(f"{runner} does not say for which Spark it is")
    return found.group(1)


def pyspark(cache: Path, version: str) -> Path:
    """Spark itself: its jars and scripts out of the pyspark package, in a folder of its own."""
    folder = cache / f"pyspark-{version}"
    if not (folder / "complete").exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder)]
        done = subprocess.run([*install, f"pyspark=={version}"], capture_output=True, text=True)
        if done.returncode:
            raise PartsError(f"pip cannot deliver pyspark=={version}:\n{done.stderr[-2000:]}")
        (folder / "complete").touch()
    return folder / "pyspark"
