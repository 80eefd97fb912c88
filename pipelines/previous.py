"""`--previous DIR [DIR ...]`: finished builds that a new one adds to. Which they are, and whether they fit.

A build that adds to others holds only what is new, and all that it needs: pictures of earlier builds that its pages
show are copied into it, so that it can be read, removed from and moved on its own. What an earlier build is known by
are digests of its commit records, not where it lies: one that changed is noticed, and what depends on it is done
again. Nothing follows of itself: a third build names both earlier ones, and is warned where it does not.

Read `previous_documents.py`, `previous_images.py` and `previous_copies.py` for what the builds have in common, and
where they differ from one build of everything.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmc4_builder import commits, storage, tombstones
from mmc4_builder.commits import Commit
from mmc4_builder.workspace import Unit
from pipelines.build import BuildError, continued
from pipelines.changes import NEAR_TEXT, differences
from pipelines.config import Build, Previous, PreviousBuild, as_json
from pipelines.plan import LISTERS, Plan
from pipelines.shared_paths import absolute
from pipelines.units import unit_fingerprint

# Of these settings it hangs whether lines and pictures of two builds can be compared at all.
COMPARED = ("documents.text", "documents.html", "images.rules")
# These only decide what became a document, or was asked for: what earlier builds decided stays.
TOLERATED = ("documents.min_english", "documents.bad_words", "images.urls")
# What is read of an earlier build but its tars, which are held against the hashes in their rows.
READ = re.compile(r"(documents|images)/[^/]+\.parquet|exchange/(lines|bands)/[^/]+\.arrows")


class PreviousError(Exception):
    """A folder that nothing can be added to; the message names it and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """A finished build, and its records of what is read of it."""

    plan: Plan
    described: Mapping[str, Any]
    documents: tuple[Commit, ...]
    images: tuple[Commit, ...]


def find(asked: Sequence[str] | None, output: str, build: Build) -> tuple[Previous, list[str]]:
    """The earlier builds as `build` is to know them, in the order given, and what their user should know."""
    roots = [absolute(root.rstrip("/")) for root in asked or ()]
    for root in roots:
        if _same(root, absolute(output.rstrip("/"))):
            raise PreviousError(f"--previous {root} is the --output itself: name builds that were made before it")
        if sum(_same(root, other) for other in roots) > 1:
            raise PreviousError(f"--previous names {root} twice: name each earlier build once")
    found = [open_build(root) for root in roots]
    for one in found:
        require_same_rules(one, build)
    removed = tombstones.of(roots)
    return Previous(
        builds=tuple(
            PreviousBuild(root=one.plan.root, files=len(one.plan.files), buckets=len(one.plan.buckets)) for one in found
        ),
        documents={} if build.documents.c4 else {one.plan.root: digest(one.documents) for one in found},
        images={one.plan.root: digest(one.images) for one in found},
        removed=commits.fingerprint(removed.to_text()) if len(removed) else "",
    ), [note for one in found for note in (*other_choices(one, build), *unnamed(one, roots))]


def open_build(root: str) -> Earlier:
    """The build that lies in a folder, which must have all its documents and pictures."""
    path = storage.join(root, "build.json")
    if not storage.exists(path):
        raise PreviousError(f"--previous {root}: there is no build in it, since it has no build.json")
    try:
        plan, described = continued(root), json.loads(storage.read(path))
        documents, images = (described["fingerprints"][stage] for stage in ("documents", "images"))
    except (BuildError, ValueError, KeyError, TypeError) as error:
        raise PreviousError(f"--previous {root}: its build.json cannot be used: {error}") from error
    of_corpus = commits.fingerprint(documents, [unit.inputs for unit in plan.files])
    of_text = commits.fingerprint(of_corpus, plan.build.documents.near_text)
    steps = {} if plan.build.documents.c4 else {"claim_lines": of_corpus}
    steps |= {"documents": of_corpus} | ({"sketch": of_text} if plan.build.documents.near_text else {})
    return Earlier(
        plan=plan,
        described=described,
        documents=tuple(
            commit for step, dated in steps.items() for commit in records(root, "documents", step, dated, plan.files)
        ),
        images=records(root, "images", "images", images, plan.buckets),
    )


def records(root: str, stage: str, step: str, fingerprint: str, units: Sequence[Unit]) -> tuple[Commit, ...]:
    """The records of a step of an earlier build; PreviousError where one is missing, or of another configuration."""
    with ThreadPoolExecutor(LISTERS) as pool:
        found = tuple(pool.map(partial(_record, root, step, fingerprint), units))
    done = tuple(commit for commit in found if commit is not None)
    if len(done) < len(units):
        raise PreviousError(
            f"--previous {root} is not finished: of its stage {stage!r}, {len(units) - len(done):,} of {len(units):,} "
            f"units of the step {step!r} are not done. Run its own command to the end first"
        )
    return done


def _record(root: str, step: str, fingerprint: str, unit: Unit) -> Commit | None:
    """Whether the files are whole is not asked: pictures of a tar that is gone are fetched."""
    path = commits.path_of(root, step, unit.name)
    if not storage.exists(path):
        return None
    try:
        commit = commits.from_json(storage.read(path))
    except (ValueError, KeyError, TypeError):
        return None
    return commit if commit.fingerprint == unit_fingerprint(fingerprint, unit) else None


def digest(found: Sequence[Commit]) -> str:
    """What is read of an earlier build, by the checksums in its records."""
    files = ((out.path, out.sha256) for one in found for out in one.outputs)
    return commits.fingerprint(sorted(file for file in files if READ.fullmatch(file[0])))


def require_same_rules(one: Earlier, build: Build) -> None:
    """PreviousError where lines or pictures of the two builds are not made by the same rules."""
    before, now = one.plan.build, build
    compared = (*COMPARED, NEAR_TEXT) if build.documents.near_text else COMPARED
    other = [f"{name}: {change}" for name, change in _differences(one, build) if _below(name, compared)]
    if bool(before.documents.c4) != bool(now.documents.c4):
        kinds = ("C4's rules", "released C4")
        other.append(f"documents: {kinds[bool(before.documents.c4)]} -> {kinds[bool(now.documents.c4)]}")
    if other:
        raise PreviousError(
            f"--previous {one.plan.root} was made by other rules, so that its lines or pictures are not comparable "
            f"({'; '.join(other)}): build with the same rules, or without --previous"
        )


def other_choices(one: Earlier, build: Build) -> Iterator[str]:
    """Settings that are not the same and may be so."""
    other = [f"{name}: {change}" for name, change in _differences(one, build) if _below(name, TOLERATED)]
    if other:
        yield f"--previous {one.plan.root} was made with other settings, what it has decided stays: {'; '.join(other)}"


def unnamed(one: Earlier, roots: Sequence[str]) -> Iterator[str]:
    """Builds that an earlier one adds to, and that are not named."""
    for before in one.plan.build.previous.builds:
        if not any(_same(before.root, root) for root in roots):
            yield (
                f"--previous {one.plan.root} adds to {before.root}, which is not named: what only that one has counts "
                f"as new. Name both: --previous {before.root} {one.plan.root}"
            )


def _differences(one: Earlier, build: Build) -> Iterator[tuple[str, str]]:
    return differences(one.described["config"], as_json(build))


def _below(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _same(one: str, other: str) -> bool:
    """Whether two names are of one place."""
    local = storage.is_local(one) and storage.is_local(other)
    return os.path.realpath(one) == os.path.realpath(other) if local else one == other
