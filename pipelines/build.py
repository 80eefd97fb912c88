"""A whole build, stage after stage: plan, skip what is done, run the rest, add everything up."""

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, TextIO

from pydantic import TypeAdapter

from mmc4_builder import __version__, commits, storage, timings
from mmc4_builder.commits import Commit
from mmc4_builder.funnel import Funnel
from mmc4_builder.shards import sizes_json
from pipelines import changes, earlier, launch, replacement, retry, summary, watch
from pipelines.config import Build, as_json
from pipelines.inherit import inherit
from pipelines.launch import Engine
from pipelines.plan import STAGES, Crawl, Plan, Stage, remove_stale

PACKAGES = (
    "apache-beam", "fastwarc", "warcio", "resiliparse", "pycld2", "pillow", "simplejpeg", "numpy",
    "scipy", "pyarrow", "open_clip_torch", "torch", "pycurl", "protego",
)  # fmt: skip


class BuildError(Exception):
    """The build cannot start or go on; the message names what is wrong and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a build did."""

    funnel: Funnel
    ran: tuple[str, ...]  # stages that had something to do


def build(
    plan: Plan, engine: Engine, *, stages: Sequence[str] = STAGES, reconfigure: bool = False,
    retry_failed: bool = False, stream: TextIO = sys.stderr,
) -> Outcome:  # fmt: skip
    """Run the named stages; what an earlier run committed is not done again."""
    for line in claim(plan, reconfigure):
        print(line, file=stream)
    inherit(plan)
    storage.sweep(plan.root)
    replacement.discard(plan.root, timings.RUNNING)
    replacement.finish_all(plan.root)
    retry.finish(plan)
    if retry_failed:
        ask_again(plan, engine, stream)
    require_earlier(plan, stages)
    ran = []
    for name in STAGES:
        if name in stages and run_stage(plan, plan.stage(name), engine, stream):
            ran.append(name)
            if name == "documents":
                require_pages(plan)
    if "shards" in stages:
        tidy(plan)
    replacement.discard(plan.root, timings.RUNNING)
    return Outcome(funnel=summary.write(plan), ran=tuple(ran))


def run_stage(plan: Plan, stage: Stage, engine: Engine, stream: TextIO) -> bool:
    """Run one stage unless every unit of it is committed; whether there was anything to do."""
    done: list[Commit] = []
    stale = 0
    for work in stage.work:
        valid = work.committed(plan.root)
        stale += remove_stale(plan.root, work, valid)
        done += valid
    earlier.forget(plan.root, stage.name)
    if stale:
        print(f"{stage.name}: results of {stale:,} units do not count any more: changed, missing or cut", file=stream)
    if len(done) == stage.total:
        print(f"{stage.name}: all {stage.total} units are done", file=stream)
        watch.passed(plan.root, stage, done, engine.told)
        return False
    with watch.followed(plan.root, stage, done, stream, engine.told) as look:
        launch.run(stage.transform, engine, look)
    return True


def ask_again(plan: Plan, engine: Engine, stream: TextIO) -> None:
    """Fetch once more what failed in a way that may pass; what depends on it is left to be done anew."""
    again = retry.stage(plan)
    if again is None:
        print("retry: nothing failed in a way that may pass", file=stream)
    else:
        run_stage(plan, again, engine, stream)
        retry.finish(plan)


def claim(plan: Plan, reconfigure: bool) -> list[str]:
    """Write build.json, or make sure that the one that lies there is of this very build.

    What will be done again, and why, a line a stage.
    """
    path = storage.join(plan.root, "build.json")
    now = describe(plan)
    again: list[str] = []
    if storage.exists(path):
        before = json.loads(storage.read(path))
        if (said := refusal(plan, before, now, reconfigure)) is not None:
            raise BuildError(said)
        origins = earlier.origins(plan.root, before, now)
        again = [f"{stage}: again, {'; '.join(changes.why_stage(stage, origins[stage], now))}" for stage in origins]
        now |= earlier.entries(origins, now)
    storage.write(path, json.dumps(now, indent=2).encode() + b"\n")
    return again


def refusal(plan: Plan, before: dict[str, Any], now: dict[str, Any], reconfigure: bool) -> str | None:
    """Why a build may not go on in place, from the build.json that lies there."""
    if before.get("crawl") != now["crawl"]:
        return (
            f"{plan.root} holds a build of crawl {before.get('crawl')!r}, not of {plan.crawl.name!r}: "
            "choose another --output"
        )
    changed = earlier.changed(before, now)
    if not changed or reconfigure:
        return None
    return (
        f"{plan.root} belongs to another configuration: {', '.join(changes.told(before, now))}. Choose another "
        f"--output, or pass --reconfigure to do these stages again in place: {', '.join(changed)}"
    )


def continued(root: str) -> Plan:
    """The build that lies in a folder, as its build.json tells it."""
    path = storage.join(root, "build.json")
    if not storage.exists(path):
        raise BuildError(f"there is no build in {root}: no build.json. Name the crawl too, or another --output")
    described = json.loads(storage.read(path))
    try:
        made = TypeAdapter(Build).validate_python(described["config"])
        warcs = tuple(tuple(warc) for warc in described["warcs"])
        found = Crawl(name=described["crawl"], root=described["crawl_root"], warcs=warcs)
    except (KeyError, ValueError) as error:
        raise BuildError(
            f"{path} is of another version of mmc4-build ({error}): name the crawl and all flags"
        ) from error
    return Plan(build=made, crawl=found, root=root)


def describe(plan: Plan) -> dict[str, Any]:
    """The content of build.json: what was asked for, of what, with which versions."""
    return {
        "mmc4_build": __version__,
        "crawl": plan.crawl.name,
        "crawl_root": plan.crawl.root,
        "config": as_json(plan.build),
        "fingerprints": plan.fingerprints(),
        "seeds": {},  # nothing is drawn at random: ties are broken by hash and by place in the crawl
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
        "warcs": [list(warc) for warc in plan.crawl.warcs],
    }


def require_earlier(plan: Plan, stages: Sequence[str]) -> None:
    """A stage reads what those before it committed; those that are not to be run must be done."""
    for name in STAGES[: max(map(STAGES.index, stages))]:
        if name in stages:
            continue
        missing = [work.step for work in plan.stage(name).work if len(work.committed(plan.root)) < len(work.units)]
        if missing:
            needed_by = next(stage for stage in stages if STAGES.index(stage) > STAGES.index(name))
            raise BuildError(
                f"stage {needed_by!r} needs stage {name!r}, of which {', '.join(missing)} is not done: "
                f"run --stages {name} first"
            )


def require_pages(plan: Plan) -> None:
    """Files that hold no page at all are a mistake to be told now, not an empty corpus at the end."""
    counts = commits.total(commits.load_all(plan.root, "extract", [unit.name for unit in plan.files]))
    if not counts.get("records.kept"):
        dropped = "records.dropped."
        reasons = [f"{n} {name.removeprefix(dropped)}" for name, n in counts.items() if name.startswith(dropped)]
        raise BuildError(
            f"no HTML page in {len(plan.crawl.warcs)} WARC files (the first is {plan.crawl.warcs[0][0]}); found: "
            f"{', '.join(reasons) or 'nothing'}. What could not be read is listed in {plan.root}/dead_letters/extract"
        )


def tidy(plan: Plan) -> None:
    """Remove tars and docs shards that an earlier configuration left, and list the sizes of those that count."""
    (work,) = plan.stage("shards").work
    written = commits.load_all(plan.root, "shards", [unit.name for unit in work.units])
    sizes = sizes_json([commit.counts["samples.kept"] for commit in written], plan.build.shards.format)
    storage.write(storage.join(plan.root, "shards/sizes.json"), sizes.encode())
    docs = commits.load_all(plan.root, "interleave", [unit.name for unit in plan.files])
    named = {output.path for commit in (*written, *docs) for output in commit.outputs} | {"shards/sizes.json"}
    for folder in ("shards", "docs"):
        for name in storage.names(storage.join(plan.root, folder)):
            if f"{folder}/{name}" not in named:
                storage.remove(storage.join(plan.root, folder, name))
