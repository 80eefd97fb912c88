"""timing.json: what a build took, from the notes of its units."""

from mmc4_builder import storage, timings
from mmc4_builder.timing_sums import StageTime, Times, stage_time, times
from pipelines.plan import STAGES, Plan

PATH = "timing.json"


def gather(plan: Plan) -> Times:
    """Everything that was noted of the units of this build."""
    return times((_stage(plan, name) for name in STAGES if _is_planned(plan, name)), timings.load_hosts(plan.root))


def write(plan: Plan, found: Times) -> None:
    """Write timing.json; none where nothing is known."""
    if found.stages:
        storage.write(storage.join(plan.root, PATH), found.to_json().encode())


def _stage(plan: Plan, name: str) -> StageTime:
    steps = [
        (work.step, len(work.units), timings.load_all(plan.root, work.step, [unit.name for unit in work.units]))
        for work in plan.stage(name).work
    ]
    return stage_time(name, timings.load_runs(plan.root, name), steps)


def _is_planned(plan: Plan, name: str) -> bool:
    """The tars are known when the documents of all files are."""
    if name != "shards":
        return True
    (interleaved,) = plan.stage("interleave").work
    return len(interleaved.committed(plan.root)) == len(interleaved.units)
