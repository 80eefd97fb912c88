"""What a unit of work sees: a place to write its files, count its records and leave rows for other units."""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mmc4_builder import commits, storage
from mmc4_builder.commits import Commit, Output, Piece

WORKER = "MMC4_WORKER"  # environment variable by which `pipelines/boot.py` names the worker of an engine
GROUP_ROWS = 500
GROUP_CHARS = 16_000_000  # of a row group, so that hostile pages cannot fill the memory
PARQUET: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One piece of work: its name, what it reads from outside, and the rows that others left for it."""

    name: str
    inputs: tuple[str, ...] = ()
    pieces: tuple[Piece, ...] = ()


@dataclass(slots=True)
class Workspace:
    """Collects the outputs of one unit; `commit` publishes them."""

    root: str
    step: str
    unit: Unit
    counts: Counter[str] = field(default_factory=Counter)
    _outputs: list[Output] = field(default_factory=list)
    _pieces: dict[str, list[Piece]] = field(default_factory=lambda: defaultdict(list))
    _dead: list[dict[str, Any]] = field(default_factory=list)

    def path(self, relative: str) -> str:
        """Full path of a file of the build."""
        return storage.join(self.root, relative)

    @contextmanager
    def create(self, relative: str) -> Iterator[BinaryIO]:
        """A stream that becomes `relative`, whole and checksummed, when the block ends."""
        with storage.write_atomic(self.path(relative)) as stream:
            hashing = _Hashing(stream)
            yield hashing  # type: ignore[misc]
        self._outputs.append(Output(path=relative, size=hashing.size, sha256=hashing.digest.hexdigest()))

    @contextmanager
    def parquet(self, relative: str, schema: pa.Schema) -> Iterator["Rows"]:
        """A Parquet file, written a row group at a time so that memory does not grow with it."""
        with ExitStack() as stack:
            stream = stack.enter_context(self.create(relative))
            rows = Rows(stack.enter_context(pq.ParquetWriter(stream, schema, **PARQUET)), schema)
            yield rows
            rows.flush()

    def leave(self, exchange: str, rows: dict[str, pa.Table]) -> None:
        """Leave rows for other units: one file, one Arrow stream after another in sorted order of destination.

        Only the address of each stream travels through the engine's shuffle, never the rows.
        """
        with self.create(f"exchange/{exchange}/{self.unit.name}.arrows") as stream:
            offset = 0
            for destination in sorted(rows):
                data = _to_ipc(rows[destination])
                stream.write(data)
                piece = Piece(exchange=exchange, source=self.unit.name, offset=offset, length=len(data))
                self._pieces[destination].append(piece)
                offset += len(data)

    def received(self, exchange: str, schema: pa.Schema) -> pa.Table:
        """The rows that others left for this unit, in sorted order of their source."""
        mine = sorted((p for p in self.unit.pieces if p.exchange == exchange), key=lambda p: p.source)
        tables = [self._read(piece) for piece in mine]
        return pa.concat_tables([schema.empty_table(), *tables])

    def _read(self, piece: Piece) -> pa.Table:
        with storage.open_read(self.path(f"exchange/{piece.exchange}/{piece.source}.arrows")) as stream:
            stream.seek(piece.offset)
            return pa.ipc.open_stream(stream.read(piece.length)).read_all()

    def tally(self, what: str, reason: str | None, times: int = 1) -> None:
        """Count something that entered: kept where there is no reason, else dropped for it."""
        self.counts[f"{what}.entered"] += times
        self.counts[f"{what}.kept" if reason is None else f"{what}.dropped.{reason}"] += times

    def bury(self, what: str, reason: str, **details: Any) -> None:
        """Count a record that could not be used, and keep its reason and provenance as a dead letter."""
        self.tally(what, reason)
        self._dead.append({"what": what, "reason": reason, **details})

    def commit(self, fingerprint: str) -> Commit:
        """Write the dead letters, then the record that makes everything above count."""
        if self._dead:
            with self.create(f"dead_letters/{self.step}/{self.unit.name}.jsonl") as stream:
                stream.writelines(json.dumps(letter).encode() + b"\n" for letter in self._dead)
        commit = Commit(
            step=self.step,
            unit=self.unit.name,
            fingerprint=fingerprint,
            outputs=tuple(self._outputs),
            counts=dict(sorted(self.counts.items())),
            pieces={unit: tuple(pieces) for unit, pieces in sorted(self._pieces.items())},
            by=os.environ.get(WORKER, ""),
        )
        commits.write(self.root, commit)
        return commit


@dataclass(slots=True)
class Rows:
    """Rows on their way into a Parquet file, grouped so that readers can take them a group at a time."""

    writer: pq.ParquetWriter
    schema: pa.Schema
    waiting: list[dict[str, Any]] = field(default_factory=list)
    weight: int = 0  # of what waits

    def append(self, row: dict[str, Any], *, weight: int = 0) -> None:
        """Add one row; `weight` tells of large ones how many characters they hold, roughly."""
        self.waiting.append(row)
        self.weight += weight
        if len(self.waiting) >= GROUP_ROWS or self.weight >= GROUP_CHARS:
            self.flush()

    def extend(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add several rows."""
        for row in rows:
            self.append(row)

    def flush(self) -> None:
        """Write what waits as one row group."""
        if self.waiting:
            self.writer.write_table(pa.Table.from_pylist(self.waiting, schema=self.schema))
            self.waiting = []
            self.weight = 0


def read_rows(path: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file, a row group in memory at a time."""
    with storage.open_read(path) as stream:
        file = pq.ParquetFile(stream)
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, columns=columns).to_pylist()


def partition(table: pa.Table, column: str, units: int, name: str = "{:05d}") -> dict[str, pa.Table]:
    """Split rows by an integer column into `units` destinations, keeping their order within each."""
    import numpy as np

    keys = table[column].to_numpy() % np.uint64(units)
    order = np.argsort(keys, kind="stable")
    bounds = np.searchsorted(keys[order], np.arange(units + 1, dtype=np.uint64))
    return {
        name.format(i): table.take(order[bounds[i] : bounds[i + 1]]) for i in range(units) if bounds[i + 1] > bounds[i]
    }


def _to_ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue().to_pybytes())


class _Hashing:
    """Passes writes through and remembers their size and SHA-256."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.size = 0
        self.digest = hashlib.sha256()
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self.stream.write(view)
        self.digest.update(view)
        self.size += view.nbytes
        return view.nbytes

    def writelines(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self.write(line)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self.stream.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """The storage layer closes the real stream when the file is complete."""
