"""Processes of an engine on 127.0.0.1: started, watched, and stopped with all that they have started themselves."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from builds import ROOT
from engine_parts import Parts

MARK = "MMC4_ENGINE_RUN"  # in the environment of every process of a cluster, also of those that an engine starts
START_SECONDS = 90.0
STOP_SECONDS = 20.0
QUICK = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]  # these live for a minute: most of it is starting up


@dataclass(slots=True)
class Cluster:
    """The processes, in the order in which they were started, and where they may be reached.

    The job server is not among them: the launcher starts it, and must stop it.
    """

    executor: ClassVar[str]  # by which the command lines of processes that start Python workers are known
    logs: ClassVar[tuple[str, ...]] = ("*.log", "python/*/log")

    parts: Parts
    folder: Path
    web: str = ""
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self) -> None:
        """Start the engine's own processes, and wait until they know of each other."""
        raise NotImplementedError

    def variables(self) -> dict[str, str]:
        """What the engine's processes want in their environment."""
        raise NotImplementedError

    def engine_flags(self) -> Sequence[str]:
        """Of mmc4-build: where the engine is, and what its job server needs."""
        raise NotImplementedError

    def flags(self, cache_millis: int = 600_000) -> list[str]:
        """Of mmc4-build, to run on this cluster."""
        config = {"command": str(self.worker_program()), "env": {"MMC4_WORKER_DIR": str(self.folder / "python")}}
        return [
            *self.engine_flags(),
            f"--artifacts_dir={self.folder / 'artifacts'}",
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

    def run(self, name: str, command: Sequence[str]) -> None:
        """Start a process and remember it."""
        nothing, own = subprocess.DEVNULL, {**os.environ, **self.variables(), MARK: str(self.folder)}
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, env=own, stdin=nothing, stdout=log, stderr=log, start_new_session=True)
        self.processes.append(process)

    def ask(self) -> dict[str, Any]:
        """What the engine tells of itself; nothing while it does not answer."""
        with suppress(OSError, ValueError), urllib.request.urlopen(self.web, timeout=5) as answer:
            return dict(json.load(answer))
        return {}

    def is_idle(self) -> bool:
        """Whether no job runs, and none has come to its end."""
        raise NotImplementedError

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
        """Ends of all logs, the Python workers' among them."""
        for log in sorted(log for pattern in self.logs for log in self.folder.glob(pattern)):
            text = log.read_text(errors="replace").splitlines()
            if text:
                yield "\n".join([f"--- {log.relative_to(self.folder)}", *text[-lines:]])


@contextmanager
def running(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster for the time of a block. Where the block fails its logs are shown and stay."""
    cluster.folder.mkdir(parents=True)
    try:
        cluster.start()
        yield cluster
    except BaseException:
        print(*cluster.tails(), sep="\n", file=sys.stderr, flush=True)
        raise
    finally:
        cluster.stop()
    shutil.rmtree(cluster.folder)


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


def wait(what: str, is_there: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """TimeoutError if it does not come."""
    deadline = time.monotonic() + seconds
    while not is_there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)
