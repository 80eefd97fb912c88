"""The files of a build without what a removal takes out of them. A file that names nothing of it is not written."""

import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mmc4_builder import storage
from mmc4_builder.commits import Commit, Piece
from mmc4_builder.workspace import PARQUET, Workspace
from pipelines import erase
from pipelines.erase import Clean, Marks, Row

COPY = 1 << 20  # bytes of a tar that are in memory at a time

Touched = Callable[[pa.Table], bool]


@dataclass(slots=True)
class Rows:
    """How the rows of a table are cleaned, and what went on the way."""

    clean: Clean
    touched: Touched
    gone: list[Row] = field(default_factory=list)  # rows that went, or that were blanked

    def apply(self, table: pa.Table) -> pa.Table | None:
        """The table as it is to be, or None where nothing of it changes."""
        if not self.touched(table):
            return None
        before = table.to_pylist()
        after = [self.clean(row) for row in before]
        self.gone += [old for old, new in zip(before, after, strict=True) if new is None or _is_blank(new, old)]
        kept = [row for row in after if row is not None]
        return None if kept == before else pa.Table.from_pylist(kept, schema=table.schema)


def _is_blank(new: Row, old: Row) -> bool:
    return new.get("url") == "" and old.get("url") != ""


def rows_of(path: str, marks: Marks) -> Rows:
    """How the tables of this file are cleaned."""
    named = partial(erase.touched, marks=marks)
    folder, _, name = path.rpartition("/")
    if folder in ("documents/pages", "documents"):
        return Rows(partial(erase.clean_page, marks=marks), named)
    if folder in ("scores/images", "scores/opinions", "scores/faces"):
        return Rows(partial(erase.clean_hashed, marks=marks), partial(_holds, hashes=marks.gone))
    if folder == "scores" and name[:1].isdigit():
        return Rows(partial(erase.clean_scored, marks=marks), lambda table: _has(table, marks) or named(table))
    return Rows(partial(erase.clean, marks=marks), named)


def _holds(table: pa.Table, hashes: frozenset[str]) -> bool:
    return bool(hashes) and not hashes.isdisjoint(table["sha256"].to_pylist())


def _has(table: pa.Table, marks: Marks) -> bool:
    """Whether a documents' row that goes still has scores here."""
    sizes = zip(table["row"].to_pylist(), table["images"].combine_chunks().value_lengths().to_pylist(), strict=True)
    return bool(marks.rows) and any(size and row in marks.rows for row, size in sizes)


def rewrite(path: str, record: Commit, workspace: Workspace, marks: Marks) -> tuple[Commit, list[Row]]:
    """Write the file anew where it must change; the record with new addresses and counts, and the rows that went."""
    if path.endswith(".parquet"):
        rows = rows_of(path, marks)
        parquet(path, workspace, rows)
        return replace(record, counts=moved(record.counts, path, rows.gone)), rows.gone
    if path.endswith(".arrows"):
        return arrows(path, record, workspace, rows_of(path, marks)), []
    if path.startswith("images/") and path.endswith(".tar"):
        tar(path, workspace, marks.gone)
    elif path.endswith(".jsonl"):
        letters(path, workspace, marks)
    return record, []


def moved(counts: object, path: str, gone: list[Row]) -> dict[str, int]:
    """Counts of a step after these rows of one of its files went."""
    after: dict[str, int] = dict(counts)  # type: ignore[call-overload]
    folder = path.rpartition("/")[0]
    for row in gone:
        if folder == "documents":
            erase.move(after, "pages", None)
        elif folder == "images":
            erase.move(after, "urls", row["reason"])
    return after


def parquet(path: str, workspace: Workspace, rows: Rows) -> None:
    """A Parquet file, a row group in memory at a time; the groups stay as they are cut."""
    with storage.open_read(workspace.path(path)) as stream:
        file = pq.ParquetFile(stream)
        groups = range(file.num_row_groups)
        changed = [i for i in groups if rows.apply(file.read_row_group(i)) is not None]
        if not changed:
            return
        rows.gone.clear()
        with workspace.create(path) as target, pq.ParquetWriter(target, file.schema_arrow, **PARQUET) as writer:
            for i in groups:
                table = file.read_row_group(i)
                after = rows.apply(table) if i in changed else None
                writer.write_table(table if after is None else after)


def arrows(path: str, record: Commit, workspace: Workspace, rows: Rows) -> Commit:
    """An exchange file, a piece at a time; the record with the new address of each piece."""
    exchange = path.split("/")[1]
    placed = sorted(
        (piece.offset, to, piece) for to, pieces in record.pieces.items() for piece in pieces
        if piece.exchange == exchange
    )  # fmt: skip
    with storage.open_read(workspace.path(path)) as stream:
        if not any(rows.apply(_table(_bytes(stream, piece))) is not None for _, _, piece in placed):
            return record
        new: dict[str, list[Piece]] = {}
        at = 0
        with workspace.create(path) as target:
            for _, to, piece in placed:
                data = _bytes(stream, piece)
                after = rows.apply(_table(data))
                data = data if after is None else _stream(after)
                target.write(data)
                new.setdefault(to, []).append(replace(piece, offset=at, length=len(data)))
                at += len(data)
    pieces = {
        to: tuple(piece for piece in old if piece.exchange != exchange) + tuple(new.get(to, ()))
        for to, old in record.pieces.items()
    }
    return replace(record, pieces=pieces)


def _bytes(stream: BinaryIO, piece: Piece) -> bytes:
    stream.seek(piece.offset)
    return stream.read(piece.length)


def _table(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue().to_pybytes())


def letters(path: str, workspace: Workspace, marks: Marks) -> None:
    """Dead letters: a line that names what goes, goes."""
    lines = storage.read(workspace.path(path)).splitlines(keepends=True)
    kept = [line for line in lines if (said := json.loads(line)) == erase.clean_value(said, marks)]
    if len(kept) < len(lines):
        with workspace.create(path) as target:
            target.writelines(kept)


def tar(path: str, workspace: Workspace, gone: frozenset[str]) -> None:
    """A tar of pictures: those that go become zeros under a name that says nothing. All others stay at their offset."""
    with storage.open_read(workspace.path(path)) as stream:
        with tarfile.open(fileobj=stream, mode="r:") as members:
            places = [(m.offset_data, m.size) for m in members if m.name.partition(".")[0] in gone] if gone else []
        if not places:
            return
        with workspace.create(path) as target:
            stream.seek(0)
            at = 0
            for offset, size in places:
                _copy(stream, target, offset - tarfile.BLOCKSIZE - at)
                info = tarfile.TarInfo(f"removed-{offset:012d}")
                info.size = size
                target.write(info.tobuf(tarfile.USTAR_FORMAT))
                for block in _zeros(size):
                    target.write(block)
                at = offset + size
                stream.seek(at)
            _copy(stream, target, None)


def _copy(source: BinaryIO, target: BinaryIO, count: int | None) -> None:
    """Copy so many bytes, or all that are left."""
    while count is None or count > 0:
        block = source.read(COPY if count is None else min(COPY, count))
        if not block:
            return
        target.write(block)
        count = None if count is None else count - len(block)


def _zeros(size: int) -> Iterator[bytes]:
    for start in range(0, size, COPY):
        yield bytes(min(COPY, size - start))
