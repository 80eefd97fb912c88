"""Who holds an output: a launcher told apart from every other one, and whether it still runs."""

import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

WORKER = b"pipelines.worker"  # a worker of a local run names its launcher behind this
END_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A launcher."""

    host: str
    machine: str  # boot and process namespace in which `pid` and `started` mean something
    pid: int
    started: str  # by the kernel's clock: another process may have the number by now
    since: str
    command: str
    token: str = field(default_factory=lambda: uuid4().hex)

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host}, since {self.since}: {self.command}"

    def is_here(self, other: "Holder") -> bool:
        """Whether the process tables of two launchers are the same one."""
        return (self.host, self.machine) == (other.host, other.machine)

    def runs(self) -> bool:
        """Whether the process still runs. To be asked on its own machine."""
        return started(self.pid) == self.started


def this_launcher(command: str) -> Holder:
    """The running process, under the command that a person would recognise."""
    return Holder(
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        started=started(os.getpid()) or "",
        since=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        command=command,
    )


def _machine() -> str:
    """Empty where there is no /proc: the host's name must do there."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    return ""


def started(pid: int) -> str | None:
    """When a process started, None where none runs; empty where only its number can be seen."""
    if os.path.exists("/proc/self/stat"):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return ""  # somebody else's, so it is there
    return ""


def workers_of(launcher: int) -> list[int]:
    """Worker processes on this machine that a launcher started, whether it still runs or not."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            words = entry.read_bytes().split(b"\0")
            if WORKER in words[:-1] and words[words.index(WORKER) + 1] == str(launcher).encode():
                found.append(int(entry.parent.name))
    return found


def end_workers() -> None:
    """Kill the workers of this very process, and wait until they are gone."""
    for pid in workers_of(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for_workers(os.getpid(), END_SECONDS)


def wait_for_workers(launcher: int, seconds: float) -> list[int]:
    """Wait until no worker of a dead launcher runs, they end with it; those that do run in the end."""
    deadline = time.monotonic() + seconds
    while (left := workers_of(launcher)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left
