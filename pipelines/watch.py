"""Follows a running stage by what its units leave, and tells how it goes: on stderr, and to whoever asked for figures.

All of it comes from commit records and from notes of what is at work (`mmc4_builder/timings.py`), which are the same on
every engine. What a stuck unit is, `mmc4_builder/stuck.py` says.

On a local disk each look lists what is at work and the records of all unfinished steps. On an object store each look is
one listing: of what is at work, or of one step in turn, steps that are at work before others. A look that took long is
followed by a rest of ten times as long, so that looking costs a tenth of a core at most.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from statistics import median
from typing import TextIO, TypeVar

from mmc4_builder import commits, storage, stuck, timings
from mmc4_builder.commits import Commit
from mmc4_builder.metrics import State
from mmc4_builder.metrics_out import Sink
from mmc4_builder.progress import Progress, clock_time
from mmc4_builder.stuck import AtWork, Patience, Stuck
from mmc4_builder.timings import Attempt
from pipelines.plan import LISTERS, STAGES, Stage

COUNTED = {"records.entered": "records", "pages.kept": "documents", "urls.kept": "images", "pictures": "images",
           "documents.kept": "documents", "samples.kept": "documents"}  # fmt: skip
ON_THE_LINE = ("records", "documents", "images")  # of the counts, those that a person sees go by
REST = 10.0  # times as long as a look took
REMEMBERED = 101  # times of units, by step, of which the median is taken
SAMPLED = 8  # of the units that a look finds committed: their times are read
NAMED = 5  # stuck units; there may be more
PATIENCE = Patience()

T = TypeVar("T")


def counted(commit: Commit) -> dict[str, int]:
    """What a unit has gone through, under the names that metrics have."""
    sums: Counter[str] = Counter()
    for name, count in commit.counts.items():
        if name in COUNTED:
            sums[COUNTED[name]] += count
        elif name == "requests" or name.endswith(".requests"):
            sums["requests"] += count
        elif name == "bytes" or name.endswith(".bytes"):
            sums["bytes_fetched"] += count
    sums["bytes_written"] += sum(output.size for output in commit.outputs)
    return dict(sums)


class Watch:
    """What is known of a running stage."""

    def __init__(
        self,
        root: str,
        stage: Stage,
        done: Sequence[Commit],
        patience: Patience = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root, self._stage, self._patience, self._clock = root, stage, patience, clock
        self._local = storage.is_local(root)
        self._waiting = {work.step: {unit.name for unit in work.units} for work in stage.work}
        self._sums: Counter[str] = Counter()
        self._done = 0
        for commit in done:
            self._count(commit)
        self._resumed, self._before = self._done, dict(self._sums)
        self._at_work = AtWork()
        self._workers: dict[Attempt, str] = {}  # of stuck units
        self._took = {step: deque[float](maxlen=REMEMBERED) for step in self._waiting}
        self._started = self._committed = clock()
        self._next = self._started  # no look before
        self._turns = 0
        self._listed = dict.fromkeys(self._waiting, 0)  # by step: the turn at which its records were listed
        self._active: set[str] = set()  # steps that were at work since then

    def look(self, *, whole: bool = False) -> State:
        """Read what is new. `whole` leaves nothing out, for the end of a stage."""
        now = self._clock()
        if whole or now >= self._next:
            with suppress(OSError, storage.StorageError):  # the next may see more; workers say what is wrong
                self._read(whole or self._local)
            self._next = self._clock() + REST * (self._clock() - now)
        return self.state()

    def state(self, name: str = "running") -> State:
        """What the looks have shown."""
        now = self._clock()
        latest = self._at_work.latest(self._waiting)
        ages = {key: now - self._at_work.since[attempt] for key, attempt in latest.items()}
        late = stuck.overdue(ages, self._took, self._patience)
        return State(
            stage=self._stage.name,
            total=self._stage.total,
            done=self._done,
            resumed=self._resumed,
            running=len(ages),
            counts=dict(sorted(self._sums.items())),
            before=self._before,
            seconds=now - self._started,
            idle_seconds=now - self._committed,
            retries=len(self._at_work.lost),
            stuck=tuple(self._stuck(latest[key], ages[key]) for key in late[:NAMED]),
            stuck_units=len(late),
            state=name,
        )

    def _stuck(self, attempt: Attempt, seconds: float) -> Stuck:
        """The worker is in the note of the attempt, which is opened once."""
        if attempt not in self._workers:
            note = timings.read_note(storage.join(self._root, attempt.path))
            self._workers[attempt] = str(note.get("by", ""))
        took = self._took[attempt.step]
        usual = median(took) if took else None
        return Stuck(unit=f"{attempt.step}/{attempt.unit}", seconds=seconds, usual=usual, by=self._workers[attempt])

    def _read(self, everything: bool) -> None:
        self._turns += 1
        steps = [step for step, waiting in self._waiting.items() if waiting]
        if everything or self._turns % 2 or not steps:
            self._at_work.see(timings.attempts(self._root), self._waiting, self._clock())
            self._active |= {attempt.step for attempt in self._at_work.since}
        if everything:
            for step in steps:
                self._list(step)
        elif steps and self._turns % 2 == 0:
            self._list(self._next_step(steps))

    def _next_step(self, steps: list[str]) -> str:
        """The step to list now. Every fourth may be any: short units come and go between looks, and are never seen."""
        likely = [step for step in steps if step in self._active]
        return min(likely if likely and self._turns % 8 else steps, key=lambda step: self._listed[step])

    def _list(self, step: str) -> None:
        """Read the records of a step that are new."""
        self._listed[step] = self._turns
        self._active.discard(step)
        new = sorted(self._waiting[step].intersection(commits.done(self._root, step)))
        for commit in self._each(partial(_record, self._root, step), new):
            self._count(commit)
            self._committed = self._clock()
        known = self._each(partial(timings.load, self._root, step), new[:SAMPLED])
        self._took[step].extend(timing.wall_seconds for timing in known if timing)

    def _each(self, read: Callable[[str], T], units: Sequence[str]) -> Iterable[T]:
        """Side by side where each is a request."""
        if self._local or len(units) < 2:
            return map(read, units)
        with ThreadPoolExecutor(LISTERS) as pool:
            return list(pool.map(read, units))

    def _count(self, commit: Commit) -> None:
        self._waiting[commit.step].discard(commit.unit)
        self._done += 1
        self._sums.update(counted(commit))


def _record(root: str, step: str, unit: str) -> Commit:
    (commit,) = commits.load_all(root, step, [unit])
    return commit


def shown(counts: dict[str, int]) -> dict[str, int]:
    """The counts that the progress line has room for."""
    return {name: counts[name] for name in ON_THE_LINE if name in counts}


class Telling:
    """Passes on what a watch sees."""

    def __init__(self, watch: Watch, progress: Progress, sinks: Sequence[Sink], patience: Patience = PATIENCE) -> None:
        self._watch, self._progress, self._sinks, self._patience = watch, progress, sinks, patience
        self._named: set[str] = set()  # stuck units that a line was written of
        self._waits = False  # whether a line says that nothing is at work

    def look(self) -> None:
        """To be called now and then."""
        self._tell(self._watch.look())

    def end(self, name: str) -> None:
        """The last look, whole where the stage is done."""
        if name == "done":
            self._watch.look(whole=True)
        self._tell(self._watch.state(name))

    def _tell(self, state: State) -> None:
        if any(one.unit not in self._named for one in state.stuck):
            self._progress.note(stuck.told(state.stage, state.stuck, state.stuck_units))
            self._named.update(one.unit for one in state.stuck)
        self._tell_of_waiting(state)
        self._progress.update(state.done, shown(dict(state.counts)))
        for sink in self._sinks:
            sink.tell(state)

    def _tell_of_waiting(self, state: State) -> None:
        """Once, until something is at work again."""
        waits = not state.running and state.done < state.total and state.idle_seconds > self._patience.seconds
        if waits and not self._waits:
            self._progress.note(
                f"{state.stage}: nothing was committed for {clock_time(state.idle_seconds)}, and no unit is at work: "
                "the engine waits for machines, or its workers load a model"
            )
        self._waits = waits


@contextmanager
def followed(
    root: str,
    stage: Stage,
    done: Sequence[Commit],
    stream: TextIO,
    sinks: Sequence[Sink] = (),
    patience: Patience = PATIENCE,
) -> Iterator[Callable[[], None]]:
    """Around the run of a stage: gives what is to be called now and then while it runs."""
    watch, began = Watch(root, stage, done, patience), time.time()
    first, how = watch.state(), "failed"
    with Progress(stage.name, stage.total, stream, resumed=len(done), resumed_counts=shown(dict(first.counts))) as line:
        telling = Telling(watch, line, sinks, patience)
        try:
            yield telling.look
            how = "done"
        finally:
            telling.end(how)
            if stage.name in STAGES:
                timings.note_run(root, stage.name, as_run(watch.state(how), began))


def as_run(state: State, began: float) -> timings.Run:
    """What is kept of a stage's end."""
    return timings.Run(
        began=round(began, 3),
        seconds=round(state.seconds, 3),
        units=state.done - state.resumed,
        resumed=state.resumed,
        retries=state.retries,
        state=state.state,
    )


def passed(root: str, stage: Stage, done: Sequence[Commit], sinks: Sequence[Sink]) -> None:
    """A stage that has nothing to do any more."""
    state = Watch(root, stage, done).state("done")
    for sink in sinks:
        sink.tell(state)
