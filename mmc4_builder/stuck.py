"""Which units are stuck, and which attempts came to nothing.

A unit is **stuck** when it is at work, that is, an attempt at it has begun and has neither committed nor failed, for
longer than ten times the median time of the units of its step that have committed, and for five minutes at least. Where
none of its step has committed yet, nothing is known of the usual time, and it is stuck after half an hour. Time counts
from when the launcher first saw the attempt, so that no clocks of two machines are compared. A worker that was killed
looks like one that hangs until the engine gives its unit to another: both want somebody to look.

A **retry** is an attempt that ended without a commit: it raised, or its unit was committed by another attempt.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from mmc4_builder.progress import clock_time
from mmc4_builder.timings import Attempt

Key = tuple[str, str]  # step and unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When a unit is stuck."""

    times: float = 10.0  # the median of its step
    seconds: float = 300.0  # and so long at least
    unknown_seconds: float = 1800.0  # where no unit of its step has committed

    def limit(self, took: Sequence[float]) -> float:
        """Seconds that a unit may be at work, by what others of its step took."""
        return max(self.seconds, self.times * median(took)) if took else self.unknown_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """A unit that has been at work for too long."""

    unit: str  # images/00012
    seconds: float  # that it has been seen at work
    usual: float | None = None  # the median of its step
    by: str = ""  # the worker, where an engine named it


@dataclass(slots=True)
class AtWork:
    """Attempts that were seen: since when each has been at work, and which ended without a commit."""

    since: dict[Attempt, float] = field(default_factory=dict)
    lost: set[Attempt] = field(default_factory=set)
    _over: set[Attempt] = field(default_factory=set)  # of units that are committed; gone in a moment, or never

    def see(self, listed: Iterable[Attempt], waiting: Mapping[str, set[str]], now: float) -> None:
        """Take in one listing, and the units of each step that have not committed. Other steps are passed over."""
        ours = [attempt for attempt in listed if attempt.step in waiting]
        self.lost.update(attempt for attempt in ours if attempt.failed)
        going = {attempt for attempt in ours if not attempt.failed}
        over = {attempt for attempt in going if attempt.unit not in waiting[attempt.step]}
        self.lost |= over & self._over
        self._over = over
        self.since = {attempt: self.since.get(attempt, now) for attempt in going - over}

    def latest(self, waiting: Mapping[str, set[str]]) -> dict[Key, Attempt]:
        """The last attempt at each unit that has not committed since."""
        found: dict[Key, Attempt] = {}
        for attempt, since in self.since.items():
            key = attempt.step, attempt.unit
            if attempt.unit in waiting[attempt.step] and (key not in found or since > self.since[found[key]]):
                found[key] = attempt
        return found


def overdue(ages: Mapping[Key, float], took: Mapping[str, Sequence[float]], patience: Patience) -> list[Key]:
    """Units that are stuck, the longest at work first."""
    limits = {step: patience.limit(took.get(step, ())) for step in {step for step, _ in ages}}
    return sorted((key for key, age in ages.items() if age > limits[key[0]]), key=lambda key: (-ages[key], key))


def told(stage: str, stuck: Sequence[Stuck], in_all: int) -> str:
    """One line for people."""
    named = ", ".join(_named(one) for one in stuck)
    more = f" and {in_all - len(stuck):,} more" if in_all > len(stuck) else ""
    return f"{stage}: stuck: {named}{more}. They hang, or their worker is gone; the others go on."


def _named(one: Stuck) -> str:
    usual = "none of its step is done yet" if one.usual is None else f"usually {clock_time(one.usual)}"
    by = f", by {one.by}" if one.by else ""
    return f"{one.unit} at work for {clock_time(one.seconds)} ({usual}{by})"
