"""A removal's work on everything but decisions: find what goes, then take it out of all files of a unit at once."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from mmc4_builder import commits, storage, tombstones
from mmc4_builder.workspace import Unit, Workspace, read_rows
from pipelines import replacement
from pipelines.erase import Marks
from pipelines.erase_files import rewrite

# exchange/erased: pictures that go for what they are, to the units whose files name their addresses.
ERASED = pa.schema([("unit", pa.string()), ("url", pa.string())])
PICTURE = ["url", "final_url", "sha256", "original_sha256", "units"]
CAPTURE = ["url", "warc", "offset"]


def find(unit: Unit, workspace: Workspace) -> None:
    """One bucket of pictures -> the addresses that no key names and that go all the same: by hash, or by redirect."""
    marks = Marks(keys=tombstones.load(workspace.root))
    found = {(row["unit"], row["url"]) for row in left_before(workspace, "erased")}
    removed = [row for row in _pictures(workspace) if marks.about(row)]
    workspace.counts["addresses.removed"] += len({row["url"] for row in removed})
    for row in removed:
        if not marks.url(row["url"]):
            found |= {(name, row["url"]) for name in (unit.name, *row["units"])}
    leave_sorted(workspace, "erased", found, ERASED)


def left_before(workspace: Workspace, exchange: str) -> Iterator[dict[str, Any]]:
    """Rows that a removal which was cut short has left here: by now their sources may be erased."""
    path = workspace.path(f"exchange/{exchange}/{workspace.unit.name}.arrows")
    data = storage.read(path) if storage.exists(path) else b""
    source = pa.BufferReader(data)
    while source.tell() < len(data):
        yield from pa.ipc.open_stream(source).read_all().to_pylist()


def leave_sorted(workspace: Workspace, exchange: str, found: set[tuple[str, Any]], schema: pa.Schema) -> None:
    """Leave pairs of destination and value, in order."""
    values: dict[str, list[Any]] = {}
    for destination, value in sorted(found):
        values.setdefault(destination, []).append(value)
    tables = {to: pa.table([[to] * len(some), some], schema=schema) for to, some in values.items()}
    workspace.leave(exchange, tables)


def erase(unit: Unit, workspace: Workspace) -> None:
    """All files that bear one number -> the same without what goes, and their records with new counts.

    `unit.inputs` are the steps that left them. They change together or not at all: some tell what others lose.
    """
    marks = mark(unit, workspace)
    workspace.counts["pictures.removed"] += len(marks.gone)
    change = replacement.begin(workspace.root, "erase", unit)
    renewed = []
    for step in unit.inputs:
        (record,) = commits.load_all(workspace.root, step, [unit.name])
        for output in record.outputs:
            if storage.exists(workspace.path(output.path)):
                record, rows = rewrite(output.path, record, change, marks)
                if output.path == f"documents/{unit.name}.parquet":
                    workspace.counts["documents.removed"] += len(rows)
        renewed.append(record)
    workspace.counts["files.rewritten"] += replacement.publish(change, renewed)


def mark(unit: Unit, workspace: Workspace) -> Marks:
    """What goes, as far as the files of one unit are concerned."""
    keys = tombstones.load(workspace.root)
    erased = frozenset(workspace.received("erased", ERASED)["url"].to_pylist())
    marks = Marks(keys=keys, urls=erased)
    pages = list(_rows(workspace, f"documents/pages/{unit.name}.parquet", CAPTURE))
    documents = list(_rows(workspace, f"documents/{unit.name}.parquet", CAPTURE))
    captures = {_capture(row) for row in (*pages, *documents) if row["url"] and marks.url(row["url"])}
    named = {row["url"] for row in (*pages, *documents) if row["url"] and _capture(row) in captures}
    rows = frozenset(n for n, row in enumerate(documents) if not row["url"] or row["url"] in named)
    return Marks(keys=keys, urls=erased | named, rows=rows, gone=gone(workspace, marks))


def gone(workspace: Workspace, marks: Marks) -> frozenset[str]:
    """Pictures of a bucket that no address shows any more; one that another address shows stays."""
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for row in _pictures(workspace):
        if row["sha256"]:
            found[marks.about(row)].add(row["sha256"])
    return frozenset(found[True] - found[False])


def _pictures(workspace: Workspace) -> Iterator[dict[str, Any]]:
    """Rows of one bucket of pictures, and of retries that may not be merged into it yet."""
    name = workspace.unit.name
    retries = [n for n in storage.names(workspace.path("retries")) if n.startswith(f"{name}.")]
    for path in (f"images/{name}.parquet", *(f"retries/{n}" for n in retries)):
        yield from _rows(workspace, path, PICTURE)


def _capture(row: dict[str, Any]) -> tuple[str, int]:
    """Released C4 may spell the address of a page in another way than the crawl."""
    return row["warc"], row["offset"]


def _rows(workspace: Workspace, path: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of a file of the build; none where it is not there yet."""
    if storage.exists(workspace.path(path)):
        yield from read_rows(workspace.path(path), columns)
