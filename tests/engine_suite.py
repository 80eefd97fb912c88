"""The sample crawl, built on a real Spark or Flink cluster by real worker processes: the same bytes, also when some are
killed.

    python tests/engine_suite.py [--engine spark flink] [--scene undisturbed ...] [--cache DIR] [--where-possible]

It needs Java, Maven, and what they and pip fetch on the first run (about 400 MB an engine). `make spark-test` and
`make flink-test` run it. Not a part of the ordinary suite: it takes minutes, and 4 GB of memory.
"""

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from builds import COMMAND, ROOT, digests, environment, run
from cluster import MARK, Cluster, marked, running, wait
from engine_parts import Parts, PartsError, gather_flink, gather_spark
from flink_cluster import FlinkCluster
from small_crawls import write_halves
from spark_cluster import SparkCluster

FILES = ("docs", "shards", "images", "documents", "scores", "interleave", "exchange", "dead_letters", "optout.parquet")
PYTHON, JOB_SERVER = "--provision_endpoint", "--artifacts-dir"  # by which their command lines are known
ENGINES: dict[str, tuple[Callable[[Path], Parts], type[Cluster]]] = {
    "spark": (gather_spark, SparkCluster),
    "flink": (gather_flink, FlinkCluster),
}
METRICS = "metrics.jsonl"
RUN_SECONDS = 1200.0
LOUD = "=" * 100


@dataclass(slots=True)
class Watched:
    """A build that runs, and what was seen of it."""

    cluster: Cluster
    output: Path
    process: "subprocess.Popen[str]"
    log: Path
    executors: set[int] = field(default_factory=set)

    def until(self, is_so: Callable[[], bool]) -> None:
        """Look on until something is so, or the build has ended."""
        deadline, looked = time.monotonic() + RUN_SECONDS, 0.0
        while self.process.poll() is None and not is_so():
            if time.monotonic() > looked + 1:
                looked = time.monotonic()
                self.executors.update(self.cluster.find(self.cluster.executor))
            assert looked < deadline, f"no end after {RUN_SECONDS:.0f} s"
            time.sleep(0.01)

    def end(self) -> int:
        """Wait for the end; the exit status."""
        self.until(lambda: False)
        return self.process.returncode

    def kill(self, kind: str) -> int:
        """Kill the youngest process of a kind, as the kernel does when memory is short; which it was."""
        victim = self.cluster.find(kind)[-1]
        os.kill(victim, signal.SIGKILL)
        return victim


def main() -> int:
    """All scenes, one after another, each on a cluster of its own."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--engine", choices=ENGINES, nargs="+", default=[*ENGINES])
    flags.add_argument("--scene", choices=SCENES, nargs="+", default=[*SCENES])
    flags.add_argument("--cache", type=Path, default=ROOT / "build/engines", help="where what is fetched stays")
    flags.add_argument("--where-possible", action="store_true", help="succeed, loudly, where the parts cannot be had")
    args = flags.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # what was started is stopped then, too
    args.cache.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="mmc4-engine-"))
    for engine in args.engine:
        gather, kind = ENGINES[engine]
        try:
            parts = gather(args.cache.resolve())
        except PartsError as error:
            print(f"{LOUD}\nTHE BUILD ON {engine.upper()} WAS NOT TESTED: {error}\n{LOUD}", file=sys.stderr)
            if args.where_possible:
                continue
            return 1
        print(f"Beam's job server {parts.version}, {parts.engine}", flush=True)
        if not (reference := folder / "reference").exists():
            run("--crawl", "sample", "--output", reference, "--workers", 1)
        for name in args.scene:
            play(name, kind(parts, folder / engine / name), reference)
        print(f"all {len(args.scene)} scenes went well", flush=True)
    subprocess.run(["rm", "-r", str(folder)], check=True)
    return 0


def play(name: str, cluster: Cluster, reference: Path) -> None:
    """One scene, and its time."""
    started = time.monotonic()
    print(f"--- {name}", flush=True)
    with running(cluster):
        SCENES[name](cluster, reference)
    assert not marked(cluster.folder)
    print(f"    {time.monotonic() - started:.0f} s", flush=True)


def undisturbed(cluster: Cluster, reference: Path) -> None:
    """The whole build, and who did it. The command again finds nothing to do."""
    watched = start(cluster, "out")
    expect(watched.end() == 0, watched)
    compare(watched.output, reference)
    expect(re.search(r"\d+/\d+ units .*%", watched.log.read_text()) is not None, watched)
    told = [json.loads(line) for line in (cluster.folder / METRICS).read_text().splitlines()]
    ends = {one["stage"]: one["units"] for one in told if one["state"] == "done"}
    assert [*ends] == ["documents", "images", "scores", "interleave", "shards"], ends
    assert all(units["done"] == units["total"] > 0 for units in ends.values()), ends
    assert any(one["state"] == "running" and one["units"]["done"] for one in told), "told of no unit before the end"
    shares = who(watched.output)
    for step, executors in shares.items():
        print(f"    {step}: units by executor {dict(executors)}")
    seen = {int(executor) for executors in shares.values() for executor in executors}
    assert seen <= watched.executors, f"{seen} did work, of which only {watched.executors} are executors"
    assert any(len(executors) > 1 for executors in shares.values()), "one executor did everything"
    again = start(cluster, "out")
    expect(again.end() == 0 and "nothing to do" in again.log.read_text(), again)


def previous(cluster: Cluster, reference: Path) -> None:
    """A crawl after another one: only what the earlier build does not have, as a local build adds it."""
    first, second = write_halves(cluster.folder)
    flags = ("--images", "archive", "--clip", "tiny", "--config", "sample")
    run(*flags, "--input", first, "--output", cluster.folder / "a", "--workers", 1)
    more = (*flags, "--input", second, "--previous", cluster.folder / "a")
    run(*more, "--output", cluster.folder / "b", "--workers", 1)
    watched = start(cluster, "out", *more)
    expect(watched.end() == 0, watched)
    compare(watched.output, cluster.folder / "b")


def python_worker_killed(cluster: Cluster, reference: Path) -> None:
    """A Python worker dies in the middle of a stage: the engine repeats what it did, or the next run goes on."""
    disturbed(cluster, reference, PYTHON, commits=6)


def executor_killed(cluster: Cluster, reference: Path) -> None:
    """A whole executor dies, with its Python worker and all that it had shuffled."""
    disturbed(cluster, reference, cluster.executor, commits=34)


def failing(cluster: Cluster, reference: Path) -> None:
    """What no worker can do ends the build with status 1 and its cause, and leaves no process behind."""
    broken = start(cluster, "out", before=lambda path: (path / "documents").write_bytes(b"a file, not a folder"))
    expect(broken.end() == 1, broken)
    expect("cannot write" in broken.log.read_text().splitlines()[-1], broken)
    expect(not cluster.find(JOB_SERVER), broken)


def ended(cluster: Cluster, reference: Path) -> None:
    """Ctrl-C takes the engine's job along, and the job server; a job server that dies ends the build with status 1."""
    watched = start(cluster, "out")
    watched.until(lambda: committed(watched.output) > 0)
    expect(not cluster.is_idle(), watched)
    os.killpg(watched.process.pid, signal.SIGINT)  # as a terminal does
    expect(watched.end() == 130 and "goes on from here" in watched.log.read_text(), watched)
    expect("no answer" not in watched.log.read_text(), watched)
    expect(not cluster.find(JOB_SERVER), watched)
    wait("the job to be cancelled", cluster.is_idle)
    done = committed(watched.output)
    again = start(cluster, "out")
    again.until(lambda: committed(again.output) > done)
    again.kill(JOB_SERVER)
    expect(again.end() == 1 and "the job server is gone" in again.log.read_text(), again)
    wait("the job to be cancelled", cluster.is_idle)


SCENES: dict[str, Callable[[Cluster, Path], None]] = {
    scene.__name__: scene for scene in (undisturbed, previous, python_worker_killed, executor_killed, failing, ended)
}


def disturbed(cluster: Cluster, reference: Path, kind: str, *, commits: int) -> None:
    """Kill a process of a kind once so many units are done. The bytes must be the same in the end."""
    watched = start(cluster, "out")
    watched.until(lambda: committed(watched.output) >= commits)
    expect(watched.process.poll() is None, watched)
    victim = watched.kill(kind)
    before = {path: path.stat().st_mtime_ns for path in (watched.output / "commits").rglob("*.json")}
    print(f"    killed {kind} {victim} after {len(before)} units", flush=True)
    code = watched.end()
    if code:
        message = watched.log.read_text().splitlines()[-1]
        print(f"    exit status {code}: {message[:200]}\n    started again", flush=True)
        again = start(cluster, "out")
        expect(again.end() == 0, again)
    compare(watched.output, reference)
    redone = [path for path, modified in before.items() if path.stat().st_mtime_ns != modified]
    assert not redone, f"done twice: {redone}"


def start(cluster: Cluster, name: str, *flags: object, before: Callable[[Path], object] = lambda path: None) -> Watched:
    """Start the command on a cluster, for the sample crawl if no flags say otherwise."""
    output = cluster.folder / name
    output.mkdir(exist_ok=True)
    before(output)
    log = cluster.folder / "launcher.log"
    told = ("--metrics", cluster.folder / METRICS, "--metrics-seconds", 1)
    words = [*COMMAND, *map(str, (*(flags or ("--crawl", "sample")), *told, "--output", output)), *cluster.flags()]
    with open(log, "w") as stream:
        process = subprocess.Popen(
            words,
            env={**environment(), MARK: str(cluster.folder)},
            stdout=stream,
            stderr=stream,
            text=True,
            start_new_session=True,  # as a terminal has it: a signal goes to all that it started
        )
    cluster.processes.append(process)
    return Watched(cluster, output, process, log)


def compare(output: Path, reference: Path) -> None:
    """The same files with the same bytes, what commit records say of who did it excepted; nothing temporary."""
    made, wanted = fingerprints(output), fingerprints(reference)
    assert made.keys() == wanted.keys(), f"other files: {sorted(made.keys() ^ wanted.keys())[:10]}"
    differ = [name for name in wanted if made[name] != wanted[name]]
    assert not differ, f"other bytes: {differ[:10]}"
    assert not list(output.rglob(".*.tmp")), "temporary files are left"
    print(f"    {len(made)} files, byte for byte those of the local build", flush=True)


def fingerprints(root: Path) -> dict[str, str]:
    """Of everything that a build leaves, build.json with its paths and the report with its times excepted."""
    found = digests(root, *FILES)
    found["funnel.json"] = (root / "funnel.json").read_text()
    for path in sorted((root / "commits").rglob("*.json")):
        record = json.loads(path.read_bytes())
        record.pop("by", None)
        found[str(path.relative_to(root))] = hashlib.sha256(json.dumps(record).encode()).hexdigest()
    return found


def who(root: Path) -> dict[str, Counter[str]]:
    """How many units of each step every executor did, as the commit records tell it."""
    shares: dict[str, Counter[str]] = {}
    for path in sorted((root / "commits").rglob("*.json")):
        _, executor, _ = json.loads(path.read_bytes())["by"].split("/")
        shares.setdefault(path.parent.name, Counter())[executor] += 1
    return shares


def committed(root: Path) -> int:
    """Units that are done."""
    with suppress(OSError):
        return sum(1 for _ in (root / "commits").rglob("*.json"))
    return 0


def expect(is_so: bool, watched: Watched) -> None:
    """An assertion about a run; where it fails, its output tells why."""
    assert is_so, f"exit status {watched.process.returncode}\n{watched.log.read_text()[-6000:]}"


if __name__ == "__main__":
    sys.exit(main())
