"""`--dry-run`: what a build would do, step by step, and why. It reads records, and writes and starts nothing."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmc4_builder import commits, storage
from mmc4_builder.sample import pack
from mmc4_builder.workspace import Unit
from pipelines import changes, earlier, lock, replacement, retry
from pipelines.build import BuildError, describe, refusal, require_earlier
from pipelines.plan import LISTERS, STAGES, Crawl, Plan, Work
from pipelines.units import unit_fingerprint

NEVER = "not done yet"
STALE = "of another configuration"
DAMAGED = "the record cannot be read"
GONE = "files missing or cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """One step, seen from before a run."""

    stage: str
    step: str
    total: int
    done: int
    why: tuple[str, ...] = ()  # the rest is to be done

    def __str__(self) -> str:
        left, width = self.total - self.done, max(1, 19 - len(self.step))
        why = f"  {'; '.join(self.why)}" if left else ""
        return f"  {self.step} {self.done:>{width},} done {left:>7,} to do{why}"


def report(plan: Plan, stages: Sequence[str] = STAGES, reconfigure: bool = False) -> str:
    """The plan as a person reads it. BuildError where the output holds another crawl."""
    now = describe(plan)
    path = storage.join(plan.root, "build.json")
    before = json.loads(storage.read(path)) if storage.exists(path) else None
    lines = []
    for stage in stages:
        found = outlook(plan, stage, before, now)
        total, done = sum(step.total for step in found), sum(step.done for step in found)
        lines.append(f"{stage}: {summary(total, done)}")
        lines += [str(step) for step in found if step.done < step.total]
        if stage == "shards" and not found:
            lines[-1] = f"shards: {later(plan, before, now)}"
    return "\n".join(
        (*lines, *notes(plan, stages, before, now, reconfigure), "dry run: nothing was written or started")
    )


def sample_to_be(root: str) -> Crawl:
    """The sample crawl that a run would write. It is the same one each time, with the sizes that an earlier run saw."""
    path = storage.join(root, "build.json")
    described = json.loads(storage.read(path)) if storage.exists(path) else {}
    if described.get("crawl") == pack.CRAWL:
        warcs = tuple(tuple(warc) for warc in described["warcs"])
    else:
        warcs = tuple((pack.warc_path(number),) for number in range(pack.WARC_FILES))
    return Crawl(name=pack.CRAWL, root=storage.join(root, "crawl"), warcs=warcs)


def summary(total: int, done: int) -> str:
    """One stage in a few words."""
    return (
        f"all {total:,} units are done"
        if done == total
        else f"{done:,} of {total:,} units done, {total - done:,} to do"
    )


def outlook(plan: Plan, stage: str, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[Outlook]:
    """The steps of a stage. None of the last one, while it cannot be known how many tars there will be."""
    if stage == "shards" and not is_done(plan, "interleave"):
        return []
    return [step_outlook(plan, stage, work, before, now) for work in plan.stage(stage).work]


def is_done(plan: Plan, stage: str) -> bool:
    """Whether every unit of a stage is committed."""
    return all(len(work.committed(plan.root)) == len(work.units) for work in plan.stage(stage).work)


def step_outlook(
    plan: Plan, stage: str, work: Work, before: Mapping[str, Any] | None, now: Mapping[str, Any]
) -> Outlook:
    """One step: what is done of it, and why the rest is not."""
    recorded = frozenset(commits.done(plan.root, work.step))
    with ThreadPoolExecutor(LISTERS) as pool:
        states = Counter(pool.map(partial(state, plan.root, work, recorded), work.units))
    done = states.pop("", 0)
    reasons = [(name, count) for name, count in sorted(states.items()) if name != STALE]
    why = [name if count == len(work.units) else f"{count:,} {name}" for name, count in reasons]
    if stale := states.get(STALE):
        known = changes.why_step(work.step, earlier.origin(stage, before), now) if before else []
        why.append(f"{stale:,} again: {'; '.join(known) or STALE}")
    return Outlook(stage=stage, step=work.step, total=len(work.units), done=done, why=tuple(why))


def state(root: str, work: Work, recorded: frozenset[str], unit: Unit) -> str:
    """Why one unit is to be done; empty where it is done."""
    if unit.name not in recorded:
        return NEVER
    if commits.find(root, work.step, unit.name, unit_fingerprint(work.fingerprint, unit)):
        return ""
    try:
        (record,) = commits.load_all(root, work.step, [unit.name])
    except (ValueError, KeyError, TypeError):
        return DAMAGED
    return GONE if record.fingerprint == unit_fingerprint(work.fingerprint, unit) else STALE


def later(plan: Plan, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """The last stage, while the one before it is not done."""
    there = len(commits.done(plan.root, "shards"))
    known = changes.why_stage("shards", earlier.origin("shards", before), now) if before else []
    fate = f"again: {'; '.join(known)}" if known else "kept where they still fit"
    made = f"; {there:,} made so far, {fate}" if there else ""
    return f"to do, how many tars there are follows from interleave{made}"


def notes(
    plan: Plan, stages: Sequence[str], before: Mapping[str, Any] | None, now: Mapping[str, Any], reconfigure: bool
) -> list[str]:
    """What else a run would meet."""
    found = [f"adds to {build.root}" for build in plan.build.previous.builds]
    if left := [*replacement.unfinished(plan.root), *commits.done(plan.root, retry.STEP)]:
        found.append(f"first, {len(left):,} units of a removal or retry that was stopped are brought to their end")
    try:
        require_earlier(plan, stages)
    except BuildError as error:
        found.append(f"would be refused: {error}")
    if before and (said := refusal(plan, dict(before), dict(now), reconfigure)) is not None:
        found.append(f"would be refused: {said}")
    if (seen := lock.look(storage.join(plan.root, lock.NAME))) is not None:
        found.append(f"the output is locked: {seen.holder or 'by a launcher that has just started'}")
    return found
