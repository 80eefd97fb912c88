"""What differs between a build as it was begun and as it is asked for now, and which steps that concerns."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.plan import STAGES

Description = Mapping[str, Any]  # the content of build.json, or one of its `earlier` ones
SHOWN = 60  # characters of a value
ABSENT = object()  # a setting that another version has or had: not the same as one that is None
NEAR_TEXT = "documents.near_text"
OF_NEAR_TEXT = ("sketch", "previous_bands", "near_text")
REMOVED_BEFORE = "previous.removed"
AFTER_OTHERS = ("documents", REMOVED_BEFORE, "previous.documents")
VECTORS = ("scores.clip", "scores.clip_sha256")
# By stage, then by step: the settings that decide what the step leaves, beside all that earlier stages read.
READS: dict[str, dict[str, tuple[str, ...]]] = {
    "documents": {
        "extract": ("documents", REMOVED_BEFORE),
        **dict.fromkeys(("map_index", "route", "look_up", "pick", "read_c4", "join_c4"), AFTER_OTHERS),
        **dict.fromkeys(("previous_documents", "judge_urls", "claim_lines", "judge_lines", "documents"), AFTER_OTHERS),
        **dict.fromkeys(OF_NEAR_TEXT, (*AFTER_OTHERS, NEAR_TEXT)),
    },
    "images": dict.fromkeys(
        ("previous_images", "mention", "redirects", "aliases", "index_store", "images", "occurrences", "frequent"),
        ("images", "previous.images"),
    ),
    "scores": {
        "embed": VECTORS,
        "scores": VECTORS,
        "faces": ("scores.face_detector", "scores.detector_sha256"),
        "evaluation": (*VECTORS, "scores.evaluation", "scores.evaluation_sha256"),
        "heads": ("scores",),
    },
    "interleave": {"interleave": ("interleave", NEAR_TEXT)},
    "shards": {"shards": ("shards",)},
}
# Who fetches and at which pace does not change what comes; opt-outs are applied by stage 4 to what is there.
OF_FETCHING = tuple(f"images.fetch.{name}" for name in ("max_bytes", "max_redirects", "ports"))
OPT_OUTS = ("images.optout", "images.optout_keys")


def stage_of(step: str) -> str:
    """The stage that a step belongs to."""
    return next(stage for stage, steps in READS.items() if step in steps)


def differences(before: Any, now: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name, and `was -> is`, of each value that differs of two configurations."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from differences(before.get(key, ABSENT), now.get(key, ABSENT), f"{at}.{key}" if at else key)
    elif before != now:
        yield at, f"{_told(before)} -> {_told(now)}"


def _told(value: Any) -> str:
    """A value in few words; long ones that differ look different."""
    text = "(no such setting)" if value is ABSENT else repr(value)
    if len(text) <= SHOWN:
        return text
    mark = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:6]
    return f"{len(value)} entries (#{mark})" if isinstance(value, (list, dict)) else f"{text[:SHOWN]}... (#{mark})"


def inputs(before: Description, now: Description) -> list[str]:
    """What differs of the WARC files."""
    old, new = ([tuple(warc) for warc in described.get("warcs", ())] for described in (before, now))
    if old == new:
        return []
    if len(old) != len(new):
        return [f"{len(old)} -> {len(new)} WARC files"]
    other = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    (was, *was_size), (now_is, *now_size) = other[0]
    first = f"{' '.join((was, *was_size))} -> {' '.join((now_is, *now_size))}"
    return [f"{len(other)} of {len(new)} WARC files are others, first {first}"]


def told(before: Description, now: Description) -> list[str]:
    """`key: was -> is` for everything that differs of what two runs were asked for."""
    return [f"{name}: {change}" for name, change in differences(before.get("config", {}), now["config"])] + inputs(
        before, now
    )


def why_step(step: str, before: Description, now: Description) -> list[str]:
    """Why what a step left under one description does not count under another; empty where no reason is known."""
    stage = stage_of(step)
    found = _own(READS[stage][step], before, now)
    if stage in ("documents", "images"):
        found += inputs(before, now)
    earlier = [name for name in STAGES[: STAGES.index(stage)] if _stage_differs(name, before, now)]
    if earlier:
        found.append(f"{earlier[0]} is done again")
    return found or _other_reason(stage, before, now)


def _other_reason(stage: str, before: Description, now: Description) -> list[str]:
    """What makes results invalid though all settings agree."""
    old, new = (described.get("fingerprints", {}) for described in (before, now))
    if old.get(stage) == new[stage] or _stage_differs(stage, before, now):  # in what another step of it reads
        return []
    if before.get("mmc4_build") != now["mmc4_build"]:
        return [f"made by mmc4-build {before.get('mmc4_build')}"]
    if now["config"]["images"]["source"] == "store" and old.get("documents") == new["documents"]:
        return ["the tars in images.store are others"]
    return ["of another format"]


def why_stage(stage: str, before: Description, now: Description) -> list[str]:
    """The reasons of all steps of a stage, each once."""
    return list(dict.fromkeys(reason for step in READS[stage] for reason in why_step(step, before, now)))


def _stage_differs(stage: str, before: Description, now: Description) -> bool:
    """Whether a stage reads or gets anything else. Text that is nearly the same is sorted out by interleave."""
    reads = (name for step, names in READS[stage].items() if step not in OF_NEAR_TEXT for name in names)
    from_outside = inputs(before, now) if stage in ("documents", "images") else []
    return bool(_own(tuple(reads), before, now) or from_outside)


def _own(reads: tuple[str, ...], before: Description, now: Description) -> list[str]:
    found = []
    for name, change in differences(before.get("config", {}), now["config"]):
        is_near_text = _below(name, NEAR_TEXT) and NEAR_TEXT not in reads
        if any(_below(name, prefix) for prefix in reads) and not is_near_text and not _is_unread(name):
            found.append(f"{name}: {change}")
    return found


def _is_unread(name: str) -> bool:
    is_pace = name.startswith("images.fetch.") and name not in OF_FETCHING
    return is_pace or any(_below(name, prefix) for prefix in OPT_OUTS)


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")
