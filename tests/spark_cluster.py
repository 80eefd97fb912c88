"""A standalone Spark cluster on 127.0.0.1: a master and two workers, each a process of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from builds import ROOT
from spark_parts import Parts

MARK = "MMC4_SPARK_RUN"  # in the environment of every process of a cluster, also of those that Spark starts
START_SECONDS = 90.0
STOP_SECONDS = 20.0
PACKAGES = ("sun.nio.ch", "java.nio", "java.util", "java.lang.invoke", "java.lang", "sun.security.action")
OPENS = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in PACKAGES]  # Spark 3.2 on Java 17

QUICK = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]  # these live for a minute: most of it is starting up


@dataclass(slots=True)
class Cluster:
    """The processes, in the order in which they were started, and where they may be reached.

    The job server is not among them: the launcher starts it, and must stop it.
    """

    parts: Parts
    folder: Path
    executors: int = 2
    master: str = ""
    web: str = ""
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self) -> None:
        """Start the master and its workers."""
        port, web_port = free_ports(2)
        self.master, self.web = f"spark://127.0.0.1:{port}", f"http://127.0.0.1:{web_port}/json/"
        at = ["--host", "127.0.0.1", "--port", str(port), "--webui-port", str(web_port)]
        self.spark("master", "org.apache.spark.deploy.master.Master", *at)
        for number in range(self.executors):
            place = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0", "--cores", "1", "--memory", "1g"]
            work = ["--work-dir", str(self.folder / f"work{number}"), self.master]
            self.spark(f"worker{number}", "org.apache.spark.deploy.worker.Worker", *place, *work)
        wait("two workers", lambda: self.alive() == self.executors)

    def settings(self) -> list[str]:
        """Of the driver, which lives in the job server, and through it of the executors."""
        spark = {
            "master": self.master,
            "driver.host": "127.0.0.1",
            "default.parallelism": "8",
            "executor.memory": "1g",
            "executor.cores": "1",
            "scheduler.minRegisteredResourcesRatio": "1.0",
            "scheduler.maxRegisteredResourcesWaitingTime": "60s",
            "ui.enabled": "false",
            "executor.extraJavaOptions": " ".join([*OPENS, *QUICK]),
        }
        return ["-Xmx1500m", *QUICK, *(f"-Dspark.{name}={value}" for name, value in spark.items())]

    def flags(self, cache_millis: int = 600_000) -> list[str]:
        """Of mmc4-build, to run on this cluster."""
        config = {"command": str(self.worker_program()), "env": {"MMC4_WORKER_DIR": str(self.folder / "python")}}
        return [
            "--runner=SparkRunner",
            f"--spark_master_url={self.master}",
            f"--spark_job_server_jar={self.parts.jar}",
            f"--artifacts_dir={self.folder / 'artifacts'}",
            *(f"--job_server_jvm_properties={setting}" for setting in self.settings()),
            "--environment_type=PROCESS",
            f"--environment_config={json.dumps(config)}",
            f"--environment_cache_millis={cache_millis}",
            "--",  # what only the job server knows
            f"--files_to_stage={self.parts.jar}",  # and not each jar that it names
        ]

    def worker_program(self) -> Path:
        """`mmc4-worker` of this very environment, or a script that does the same where it is not installed."""
        installed = Path(sys.executable).with_name("mmc4-worker")
        if installed.exists():
            return installed
        script = self.folder / "mmc4-worker"
        script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m pipelines.boot "$@"\n')
        script.chmod(0o755)
        return script

    def spark(self, name: str, main: str, *arguments: str) -> None:
        """Start one of Spark's daemons."""
        self.run(name, ["bash", str(self.parts.spark_home / "bin/spark-class"), main, *arguments])

    def run(self, name: str, command: list[str]) -> None:
        """Start a process and remember it."""
        nothing, own = subprocess.DEVNULL, self.environment()
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, env=own, stdin=nothing, stdout=log, stderr=log, start_new_session=True)
        self.processes.append(process)

    def environment(self) -> dict[str, str]:
        """Of all processes of the cluster."""
        spark = {
            "SPARK_HOME": str(self.parts.spark_home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_DAEMON_MEMORY": "512m",
            "SPARK_DAEMON_JAVA_OPTS": " ".join(QUICK),
            "SPARK_LOCAL_DIRS": str(self.folder / "local"),
            "SPARK_CONF_DIR": str(self.folder),
            MARK: str(self.folder),
        }
        return {**os.environ, **spark}

    def alive(self) -> int:
        """Workers that the master knows to be alive."""
        with suppress(OSError, ValueError), urllib.request.urlopen(self.web, timeout=5) as answer:
            return int(json.load(answer)["aliveworkers"])
        return 0

    def find(self, word: str) -> list[int]:
        """Processes of this cluster whose command line has a word, oldest first."""
        return [pid for pid in marked(self.folder) if word in command_line(pid)]

    def stop(self) -> None:
        """Stop what was started, newest first, and make sure that nothing that belongs to it is left."""
        for process in reversed(self.processes):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
            process.wait()
        with suppress(TimeoutError):
            wait("the last process to end", lambda: not marked(self.folder), STOP_SECONDS)
        left = marked(self.folder)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not left, f"the cluster left processes behind: {left}"

    def tails(self, lines: int = 25) -> Iterator[str]:
        """Ends of all logs, the executors' and Python workers' among them."""
        patterns = ("*.log", "work*/app-*/*/stderr", "python/*/log")
        for log in sorted(log for pattern in patterns for log in self.folder.glob(pattern)):
            text = log.read_text(errors="replace").splitlines()
            if text:
                yield "\n".join([f"--- {log.relative_to(self.folder)}", *text[-lines:]])


@contextmanager
def running(parts: Parts, folder: Path) -> Iterator[Cluster]:
    """A cluster for the time of a block. Where the block fails its logs are shown and stay."""
    folder.mkdir(parents=True)
    cluster = Cluster(parts, folder)
    try:
        cluster.start()
        yield cluster
    except BaseException:
        print(*cluster.tails(), sep="\n", file=sys.stderr, flush=True)
        raise
    finally:
        cluster.stop()
    shutil.rmtree(folder)


def marked(folder: Path) -> list[int]:
    """Ids of processes that bear a cluster's mark, by age; this one and those that nobody may look at excepted."""
    wanted = f"{MARK}={folder}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (path / "environ").read_bytes().split(b"\0") and not is_zombie(path):
                found.append(int(path.name))
    return sorted(found)


def is_zombie(process: Path) -> bool:
    """Whether a process has ended and only waits to be noticed."""
    return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


def command_line(pid: int) -> str:
    """Of a process; nothing once it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


def answers(port: int) -> bool:
    """Whether somebody listens."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait(what: str, is_there: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """TimeoutError if it does not come."""
    deadline = time.monotonic() + seconds
    while not is_there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)
