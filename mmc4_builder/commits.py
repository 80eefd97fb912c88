"""Commit records: the proof that a unit of work is done, and the only thing that resumption trusts."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from mmc4_builder import storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One file that a unit left."""

    path: str  # relative to the build's root
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows that one unit left for another: a range of the exchange file of its source."""

    exchange: str
    source: str  # unit that wrote them
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What a finished unit did. Written last, after every output is in place."""

    step: str
    unit: str
    fingerprint: str
    outputs: tuple[Output, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    pieces: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)  # by destination unit
    by: str = ""  # the worker, where an engine named it; nothing that is published depends on it


def fingerprint(*parts: Any) -> str:
    """Hash of configuration and inputs; two runs share work exactly where these agree."""
    return hashlib.sha256(json.dumps(parts, default=_plain, sort_keys=True).encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{value!r} cannot be part of a fingerprint")


def path_of(root: str, step: str, unit: str) -> str:
    """Where the record of a unit lies."""
    return storage.join(root, "commits", step, f"{unit}.json")


def write(root: str, commit: Commit) -> None:
    """Publish the record, atomically."""
    storage.write(path_of(root, commit.step, commit.unit), to_json(commit))


def to_json(commit: Commit) -> bytes:
    """One readable JSON object, the same bytes for the same commit. Runs on one machine do not say by whom."""
    fields = asdict(commit)
    if not commit.by:
        del fields["by"]
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def from_json(data: bytes) -> Commit:
    """Inverse of `to_json`; ValueError or KeyError on what is no commit record."""
    raw = json.loads(data)
    return Commit(
        step=raw["step"],
        unit=raw["unit"],
        fingerprint=raw["fingerprint"],
        outputs=tuple(Output(**output) for output in raw["outputs"]),
        counts=raw["counts"],
        pieces={unit: tuple(Piece(**piece) for piece in pieces) for unit, pieces in raw["pieces"].items()},
        by=raw.get("by", ""),
    )


def find(root: str, step: str, unit: str, fingerprint: str) -> Commit | None:
    """The unit's record, if it is of this configuration and its outputs still lie there in full length."""
    data = storage.find(path_of(root, step, unit))
    if data is None:
        return None
    try:
        commit = from_json(data)
    except (ValueError, KeyError, TypeError):
        return None  # not a record of ours: the unit is done again and the record replaced
    whole = all(storage.size(storage.join(root, output.path)) == output.size for output in commit.outputs)
    return commit if commit.fingerprint == fingerprint and whole else None


def done(root: str, step: str) -> list[str]:
    """Units of a step that have a record, by name; a listing, so cheap enough for a progress line."""
    return [name.removesuffix(".json") for name in storage.names(storage.join(root, "commits", step))]


def load_all(root: str, step: str, units: Iterable[str]) -> list[Commit]:
    """Records of the given units, in their order."""
    return [from_json(storage.read(path_of(root, step, unit))) for unit in units]


def total(commits: Iterable[Commit]) -> dict[str, int]:
    """Counts of several units added up, in sorted order of their names."""
    sums: dict[str, int] = {}
    for commit in commits:
        for name, count in commit.counts.items():
            sums[name] = sums.get(name, 0) + count
    return dict(sorted(sums.items()))
