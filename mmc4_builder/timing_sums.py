"""What a build took, added up from the times of its units: by stage and step, the slowest units, the worst hosts.

Only what was noted is here: `timed` of `units` tells how much that is. Nothing is estimated.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from mmc4_builder.timings import Hosts, Run, Timing

SLOWEST = 10  # units of a stage, and hosts


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """One kind of unit; seconds and bytes of those that were timed, together."""

    step: str
    units: int
    timed: int
    wall_seconds: float  # from start to commit, so more than passes where several are at work
    cpu_seconds: float
    thread_cpu_seconds: float
    median_seconds: float
    longest_seconds: float
    bytes_received: int
    bytes_fetched: int
    bytes_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """One stage: what its launchers and its units took."""

    stage: str
    runs: int  # launchers that worked on it to its end or to an error
    wall_seconds: float  # that passed in these runs
    retries: int  # attempts in them that ended without a commit
    steps: tuple[StepTime, ...]
    slowest: tuple[Timing, ...]

    @property
    def units(self) -> int:
        return sum(step.units for step in self.steps)

    @property
    def timed(self) -> int:
        return sum(step.timed for step in self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTime:
    """A host of the live web."""

    host: str
    urls: int
    failed: int
    seconds: float  # on the network


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Everything about time that is known of a build."""

    stages: tuple[StageTime, ...] = ()
    slowest_hosts: tuple[HostTime, ...] = ()
    failing_hosts: tuple[HostTime, ...] = ()

    def to_json(self) -> str:
        """The text of timing.json; its names are those of the fields."""
        return json.dumps(asdict(self), indent=2) + "\n"


def step_time(step: str, units: int, found: Sequence[Timing]) -> StepTime:
    """Add up the units of one step."""
    walls = [timing.wall_seconds for timing in found]
    return StepTime(
        step=step,
        units=units,
        timed=len(found),
        wall_seconds=round(sum(walls), 3),
        cpu_seconds=round(sum(timing.cpu_seconds for timing in found), 3),
        thread_cpu_seconds=round(sum(timing.thread_cpu_seconds for timing in found), 3),
        median_seconds=round(median(walls), 3) if walls else 0.0,
        longest_seconds=max(walls, default=0.0),
        bytes_received=sum(timing.bytes_received for timing in found),
        bytes_fetched=sum(timing.bytes_fetched for timing in found),
        bytes_out=sum(timing.bytes_out for timing in found),
    )


def stage_time(stage: str, runs: Sequence[Run], steps: Sequence[tuple[str, int, Sequence[Timing]]]) -> StageTime:
    """Add up a stage, of its runs and of each step's name, number of units, and times."""
    every = (timing for _, _, found in steps for timing in found)
    slowest = sorted(every, key=lambda timing: (-timing.wall_seconds, timing.step, timing.unit))
    return StageTime(
        stage=stage,
        runs=len(runs),
        wall_seconds=round(sum(run.seconds for run in runs), 3),
        retries=sum(run.retries for run in runs),
        steps=tuple(step_time(step, units, found) for step, units, found in steps),
        slowest=tuple(slowest[:SLOWEST]),
    )


def times(stages: Iterable[StageTime], hosts: Hosts) -> Times:
    """All stages that anything is known of, and the hosts that took most, or failed most."""
    known = [HostTime(host=host, urls=u, failed=f, seconds=round(s, 3)) for host, (u, f, s) in sorted(hosts.items())]
    slow = sorted((host for host in known if host.seconds > 0), key=lambda host: -host.seconds)
    failing = sorted((host for host in known if host.failed), key=lambda host: -host.failed)
    return Times(
        stages=tuple(stage for stage in stages if stage.timed or stage.runs),
        slowest_hosts=tuple(slow[:SLOWEST]),
        failing_hosts=tuple(failing[:SLOWEST]),
    )
