"""How long units took, and which are at work now: notes beside a build, of which nothing that is published depends.

Commit records are the same bytes on every run, so times cannot be in them. Two folders hold them instead, both written
by the one function through which every unit passes (`pipelines.units.run_unit`), on every engine and object store.

`timings/<step>/<unit>.json`, written when the unit has committed, replaced when it is done again:

    {"step": "images", "unit": "00012", "began": 1795325025.301, "wall_seconds": 63.214, "cpu_seconds": 58.102,
     "thread_cpu_seconds": 57.943, "bytes_received": 48213, "bytes_fetched": 9120331, "bytes_out": 7813004,
     "by": "host/executor/worker"}

- `began`: Unix time by the clock of the worker.
- `wall_seconds`: from the start of the unit's work to its commit. Loading a model comes before, and is not in it.
- `cpu_seconds`: CPU time of the whole worker process meanwhile, all threads, user and system. It is the unit's own
  where a process does one unit at a time, as in every local run; Spark may run several in one process.
- `thread_cpu_seconds`: of the unit's own thread: never more than its own, and less where a library has threads.
- `bytes_received`: rows that other units left for it. `bytes_fetched`: from the web, an index, or the crawl (`bytes`
  and `*.bytes` of its commit). `bytes_out`: of all files that it left.
- `by`: the worker as in the commit record; left out where no engine named it.

`timings/hosts/<step>.<unit>.json`, one for each bucket of hosts that asked the live web:
`{"<host>": [URLs, failed, seconds]}` of the hosts that failed most and of those that took most time. A host is in one
bucket only, so that the largest of all buckets are among them.

`timings/stages/<stage>.json`: `{"runs": [...]}`, a `Run` for each time that a launcher worked on the stage to its end
or to an error. One that was killed leaves none.

`running/<step>.<unit>.<attempt>.json`: an attempt at a unit, `{"began": ..., "by": ...}`. It is written before the work
begins, and removed when the unit has committed. An attempt that raised becomes `...<attempt>.failed.json`; that of a
worker which was killed stays as it is. Every build empties the folder when it starts. A listing of it is short: as many
names as units are at work, and attempts that did not succeed.

None of these notes can fail a unit, and none is made durable: a lost one is a time that is not known.
"""

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import uuid4

from mmc4_builder import storage
from mmc4_builder.commits import Commit

FOLDER, HOSTS, RUNS, RUNNING = "timings", "timings/hosts", "timings/stages", "running"
READERS = 32  # notes looked at side by side: on an object store each look is a request
MAX_HOSTS = 50  # of a bucket, by failures and by time each
MAX_RUNS = 100  # of a stage, the latest
MAX_NOTE = 300  # characters of an error

Hosts = dict[str, tuple[int, int, float]]  # host -> URLs, failed ones, seconds on the network

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One finished unit, as `timings/<step>/<unit>.json` has it."""

    step: str
    unit: str
    began: float
    wall_seconds: float
    cpu_seconds: float
    thread_cpu_seconds: float
    bytes_received: int = 0
    bytes_fetched: int = 0
    bytes_out: int = 0
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one launcher did on a stage."""

    began: float  # Unix time
    seconds: float
    units: int  # that were committed meanwhile
    resumed: int  # that had been before
    retries: int  # attempts that ended without a commit
    state: str  # done or failed


@dataclass(frozen=True, slots=True, order=True)
class Attempt:
    """A name in `running/`."""

    step: str
    unit: str
    number: str  # random: a worker knows of no other
    failed: bool = False

    @property
    def path(self) -> str:
        """Below the root of the build."""
        return f"{RUNNING}/{self.step}.{self.unit}.{self.number}{'.failed' * self.failed}.json"


@dataclass(slots=True)
class Clock:
    """The three clocks at the start of a unit; the commit and what was received are put in by `run_unit`."""

    began: float = field(default_factory=time.time)
    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)
    thread: float = field(default_factory=time.thread_time)
    received: int = 0
    commit: Commit | None = None

    def stop(self, commit: Commit) -> Timing:
        """What the unit took up to now."""
        return Timing(
            step=commit.step,
            unit=commit.unit,
            began=round(self.began, 3),
            wall_seconds=round(time.perf_counter() - self.wall, 3),
            cpu_seconds=round(time.process_time() - self.cpu, 3),
            thread_cpu_seconds=round(time.thread_time() - self.thread, 3),
            bytes_received=self.received,
            bytes_fetched=fetched(commit.counts),
            bytes_out=sum(output.size for output in commit.outputs),
            by=commit.by,
        )


def fetched(counts: Mapping[str, int]) -> int:
    """Bytes that a unit read from outside, as far as its commit counts them."""
    return sum(count for name, count in counts.items() if name == "bytes" or name.endswith(".bytes"))


@contextmanager
def attempt(root: str, step: str, unit: str, by: str = "") -> Iterator[Clock]:
    """Around the work on one unit: a name in `running/` meanwhile, and its times once it has committed."""
    this = Attempt(step, unit, uuid4().hex[:8])
    begun = {"began": round(time.time(), 3), "by": by}
    _note(root, this.path, begun)
    clock = Clock()
    try:
        yield clock
    except Exception as error:
        failed = Attempt(step, unit, this.number, failed=True)
        _note(root, failed.path, begun | {"error": f"{type(error).__name__}: {error}"[:MAX_NOTE]})
        _forget(storage.join(root, this.path))
        raise
    if clock.commit is not None:
        _note(
            root, f"{FOLDER}/{step}/{unit}.json", {k: v for k, v in asdict(clock.stop(clock.commit)).items() if v != ""}
        )
    _forget(storage.join(root, this.path))


def path_of(root: str, step: str, unit: str) -> str:
    """Where the times of a unit lie."""
    return storage.join(root, FOLDER, step, f"{unit}.json")


def load(root: str, step: str, unit: str) -> Timing | None:
    """The times of a unit, or None where they are not known."""
    raw = read_note(path_of(root, step, unit))
    try:
        return Timing(**raw)
    except TypeError:  # of another version, or no note at all
        return None


def load_all(root: str, step: str, units: Iterable[str]) -> list[Timing]:
    """The times that are known of these units, in their order."""
    there = set(storage.names(storage.join(root, FOLDER, step)))  # one listing spares a request for each that is not
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda unit: load(root, step, unit), [unit for unit in units if f"{unit}.json" in there])
        return [timing for timing in found if timing is not None]


def attempts(root: str) -> list[Attempt]:
    """The attempts that `running/` names: one listing, and nothing is opened."""
    return [found for name in storage.names(storage.join(root, RUNNING)) if (found := parse(name)) is not None]


def parse(name: str) -> Attempt | None:
    """A file name in `running/`; None where it is none of ours."""
    stem = name.removesuffix(".json")
    failed = stem.endswith(".failed")
    step, _, rest = stem.removesuffix(".failed").partition(".")
    unit, _, number = rest.rpartition(".")
    return Attempt(step, unit, number, failed) if step and unit and number else None


def note_run(root: str, stage: str, run: Run) -> None:
    """Keep what this launcher did on a stage."""
    before = [asdict(one) for one in load_runs(root, stage)]
    _note(root, f"{RUNS}/{stage}.json", {"runs": [*before, asdict(run)][-MAX_RUNS:]})


def load_runs(root: str, stage: str) -> list[Run]:
    """What launchers did on a stage, in their order."""
    try:
        return [Run(**run) for run in read_note(storage.join(root, RUNS, f"{stage}.json")).get("runs", ())]
    except TypeError:  # of another version
        return []


def note_hosts(root: str, step: str, unit: str, hosts: Hosts) -> None:
    """Keep the hosts of a bucket that failed most, and those that took most time."""
    ranked = (sorted(hosts, key=lambda host: (-hosts[host][at], host))[:MAX_HOSTS] for at in (1, 2))
    kept = sorted(set().union(*ranked))
    if kept:
        count = {host: (hosts[host][0], hosts[host][1], round(hosts[host][2], 3)) for host in kept}
        _note(root, f"{HOSTS}/{step}.{unit}.json", count)


def load_hosts(root: str) -> Hosts:
    """All hosts that buckets kept, those of a retry added to what they took before."""
    folder = storage.join(root, HOSTS)
    paths = [storage.join(folder, name) for name in storage.names(folder)]
    sums: Hosts = {}
    with ThreadPoolExecutor(READERS) as pool:
        for found in pool.map(read_note, paths):
            for host, (urls, failed, seconds) in found.items():
                before = sums.get(host, (0, 0, 0.0))
                sums[host] = (before[0] + urls, before[1] + failed, before[2] + seconds)
    return sums


def read_note(path: str) -> dict[str, Any]:
    """One of these notes; {} where there is none, or no whole one."""
    try:
        found = json.loads(storage.read(path))
    except (OSError, ValueError, storage.StorageError):
        return {}
    return found if isinstance(found, dict) else {}


def _note(root: str, relative: str, content: Mapping[str, Any]) -> None:
    """Written without waiting for the disk, and without a temporary name: readers pass over half a note.

    The root itself is never made: where it has vanished, nothing of it is to come back but by mounting it again.
    """
    data, path = json.dumps(content, separators=(",", ":")).encode() + b"\n", storage.join(root, relative)
    try:
        if not storage.is_local(root):
            storage.write(path, data)
            return
        try:
            _write_local(path, data)
        except FileNotFoundError:
            if os.path.isdir(root):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                _write_local(path, data)
    except Exception as error:  # whatever a filesystem raises, the unit is not to fail of it
        _log.warning("%s was not noted: %r", path, error)


def _write_local(path: str, data: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(data)


def _forget(path: str) -> None:
    try:
        storage.remove(path)
    except Exception as error:
        _log.warning("%s stays: %r", path, error)
