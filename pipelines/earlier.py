"""Which configuration the results of each stage were made under, while a changed one has not yet reached all stages.

build.json tells what is asked for now. A stage that still holds results of an earlier configuration is named under
`earlier` with that one, until its turn comes and they are removed: so a run that was stopped in between can still
say what is done again, and why.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmc4_builder import commits, storage
from pipelines.changes import READS, inputs
from pipelines.plan import STAGES

TOLD = ("mmc4_build", "config", "fingerprints", "warcs")


def changed(before: Mapping[str, Any], now: Mapping[str, Any], stages: Sequence[str] = STAGES) -> list[str]:
    """Stages of which at least a part is to be done again."""
    old = before.get("fingerprints", {})
    others = [stage for stage in STAGES if old.get(stage) != now["fingerprints"][stage]]
    if inputs(before, now):  # each file's extraction is dated by the file
        others = [stage for stage in STAGES if stage == "documents" or stage in others]
    return [stage for stage in others if stage in stages]


def origin(stage: str, described: Mapping[str, Any]) -> dict[str, Any]:
    """What the results of a stage were asked for, by the build.json that lies there."""
    for entry in described.get("earlier", ()):
        if stage in entry["stages"]:
            return {"warcs": described.get("warcs", []), **entry}
    return {name: described[name] for name in TOLD if name in described}


def origins(root: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By stage that has results which do not count any more: what they were asked for."""
    made = {stage: origin(stage, before) for stage in STAGES}
    return {stage: made[stage] for stage in STAGES if changed(made[stage], now, [stage]) and has_results(root, stage)}


def has_results(root: str, stage: str) -> bool:
    """Whether any step of a stage has left a record."""
    return any(commits.done(root, step) for step in READS[stage])


def entries(made: Mapping[str, Mapping[str, Any]], now: Mapping[str, Any]) -> dict[str, Any]:
    """The part of build.json that tells of earlier configurations, each once; a list of files only where it differs."""
    found: list[dict[str, Any]] = []
    for stage, described in made.items():
        told = {name: described[name] for name in TOLD if name in described}
        if told.get("warcs") == now["warcs"]:
            del told["warcs"]
        for entry in found:
            if {name: value for name, value in entry.items() if name != "stages"} == told:
                entry["stages"].append(stage)
                break
        else:
            found.append({"stages": [stage], **told})
    return {"earlier": found} if found else {}


def forget(root: str, stage: str) -> None:
    """A stage starts: what it held of an earlier configuration is removed."""
    path = storage.join(root, "build.json")
    if stage not in STAGES or not storage.exists(path):
        return
    described = json.loads(storage.read(path))
    left = [{**entry, "stages": [s for s in entry["stages"] if s != stage]} for entry in described.get("earlier", ())]
    if left == described.get("earlier", []):
        return
    if kept := [entry for entry in left if entry["stages"]]:
        described["earlier"] = kept
    else:
        del described["earlier"]
    storage.write(path, json.dumps(described, indent=2).encode() + b"\n")
