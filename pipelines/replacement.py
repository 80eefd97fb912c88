"""Several files of a build replaced as one: written beside it, sealed, then moved into place with their records.

A process that is killed before the seal has changed nothing. After the seal, `finish` moves what has not been moved.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from mmc4_builder import commits, storage
from mmc4_builder.commits import Commit, Output
from mmc4_builder.workspace import Unit, Workspace

FOLDER = "removals/staged"


@dataclass(slots=True)
class Rewriting(Workspace):
    """A workspace that reads the build and writes beside it."""

    beside: Workspace = field(kw_only=True)

    @contextmanager
    def create(self, relative: str) -> Iterator[BinaryIO]:
        """A stream that will replace `relative`."""
        with self.beside.create(relative) as stream:
            yield stream


def begin(root: str, step: str, unit: Unit) -> Rewriting:
    """A workspace for the replacement of one unit's files."""
    beside = Workspace(storage.join(root, FOLDER, f"{step}-{unit.name}"), step, unit)
    return Rewriting(root, step, unit, beside=beside)


def publish(workspace: Rewriting, records: list[Commit]) -> int:
    """Put the new files in their places, and their sizes and checksums into the records that name them; how many.

    A record whose files were not whole before stays as it is: its unit will be done again.
    """
    written = {output.path: output for output in workspace.beside.commit("").outputs}
    if not written:
        return 0
    named = [record for record in records if any(output.path in written for output in record.outputs)]
    changed = [_renewed(record, written) for record in named if _is_whole(workspace.root, record)]
    name = f"{workspace.step}-{workspace.unit.name}"
    sealed = {"files": sorted(written), "records": [commits.to_json(record).decode() for record in changed]}
    storage.write(storage.join(workspace.root, FOLDER, f"{name}.json"), json.dumps(sealed).encode())
    finish(workspace.root, name)
    return len(written)


def finish(root: str, name: str) -> None:
    """Move everything that a sealed replacement holds; it does not matter how much of it was moved before."""
    seal = storage.join(root, FOLDER, f"{name}.json")
    sealed = json.loads(storage.read(seal))
    for path in sealed["files"]:
        _move(storage.join(root, FOLDER, name, path), storage.join(root, path))
    for record in sealed["records"]:
        commits.write(root, commits.from_json(record.encode()))
    storage.remove(seal)


def finish_all(root: str) -> None:
    """Finish what a killed removal has sealed: until then no other work on the build is safe."""
    for name in unfinished(root):
        finish(root, name)


def unfinished(root: str) -> list[str]:
    """Replacements that were sealed and not finished."""
    return [name.removesuffix(".json") for name in storage.names(storage.join(root, FOLDER)) if name.endswith(".json")]


def discard(root: str, folder: str) -> None:
    """Delete a folder of the build with everything in it."""
    path = storage.join(root, folder)
    if storage.is_local(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    for name in storage.walk(path):
        storage.remove(storage.join(path, name))


def _renewed(record: Commit, written: dict[str, Output]) -> Commit:
    return replace(record, outputs=tuple(written.get(output.path, output) for output in record.outputs))


def _is_whole(root: str, record: Commit) -> bool:
    return all(storage.size(storage.join(root, output.path)) == output.size for output in record.outputs)


def _move(source: str, target: str) -> None:
    if not storage.exists(source):
        return  # an earlier try has moved it
    if storage.is_local(source):
        os.replace(source, target)
        return
    with storage.open_read(source) as stream, storage.write_atomic(target) as copy:
        shutil.copyfileobj(stream, copy, 1 << 20)
    storage.remove(source)
