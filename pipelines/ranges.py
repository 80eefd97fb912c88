"""Single records of WARC files, found by an index: neighbours fetched together, each read as a whole file is read."""

from collections.abc import Iterator, Set
from functools import partial
from itertools import groupby

import pyarrow as pa
import requests

from filters.text import url_key
from mmc4_builder import warc
from mmc4_builder.columnar_index import IndexRules, coalesce
from mmc4_builder.range_file import RangeFile, open_ranges
from mmc4_builder.urls import normalize_url
from mmc4_builder.workspace import Unit, Workspace
from pipelines.archive import warc_path

# exchange/ranges: records to fetch, to the unit of their WARC file.
RANGES = pa.schema([("warc", pa.string()), ("offset", pa.int64()), ("length", pa.int64()), ("key", pa.uint64())])

Ranges = dict[str, list[tuple[int, int, int]]]  # WARC file -> (offset, length, key) of its records, sorted


def ranges_of(unit: Unit, workspace: Workspace) -> Ranges:
    """The records that a unit is to fetch: its WARC files in the order of the crawl, those without any left out."""
    rows = workspace.received("ranges", RANGES).to_pylist()
    order = {name: number for number, name in enumerate(unit.inputs)}
    found = sorted({(order[r["warc"]], r["warc"], r["offset"], r["length"], r["key"]) for r in rows})
    return {name: [row[2:] for row in some] for (_, name), some in groupby(found, key=lambda row: row[:2])}


def read_ranges(
    ranges: Ranges, workspace: Workspace, rules: IndexRules, place: tuple[str, warc.WarcLimits]
) -> Iterator[tuple[str, warc.Record | warc.BadRecord]]:
    """The records at these places, a block of neighbours in memory at a time."""
    crawl_root, limits = place
    with requests.Session() as session:
        for name, places in ranges.items():
            path = warc_path(crawl_root, name)
            keys: dict[tuple[int, int], set[int]] = {}
            for offset, length, key in places:
                keys.setdefault((offset, length), set()).add(key)
            with open_ranges(path, session=session) as source:
                for block in coalesce(sorted(keys), rules.gap, rules.max_block):
                    data = source.fetch(block.offset, block.length)
                    for offset, length in block.records:
                        stored = data[offset - block.offset :][:length]
                        yield name, read_one(stored, (path, offset, length), keys[offset, length], limits)
                workspace.counts["ranges.wanted_bytes"] += sum(length for _, length in keys)
                count_asked(workspace, "ranges", source)


def count_asked(workspace: Workspace, what: str, source: RangeFile) -> None:
    """Note how often a server was asked, and for how much."""
    workspace.counts[f"{what}.requests"] += source.requests
    workspace.counts[f"{what}.bytes"] += source.bytes


def read_one(
    stored: bytes, place: tuple[str, int, int], keys: Set[int], limits: warc.WarcLimits
) -> warc.Record | warc.BadRecord:
    """The one response of these bytes, read as a whole WARC file is read; BadRecord where the index was wrong."""
    path, offset, length = place
    bad = partial(warc.BadRecord, path=path, offset=offset)
    if len(stored) < length:
        return bad(reason="beyond_end_of_file", detail=f"{len(stored)} of {length} bytes are there")
    record = next(warc.read_records(_Stored(stored, offset), path, limits=limits), None)
    if record is None:
        return bad(reason="not_a_response", detail="the index points at a record of another kind")
    if isinstance(record, warc.BadRecord):
        return record
    if (record.offset, record.length) != (offset, length):
        return bad(reason="wrong_length", detail=f"{length} bytes by the index, {record.length} in the file")
    if url_key(normalize_url(record.url)) not in keys:
        return bad(reason="another_page", detail=record.url[:200])
    return record


class _Stored:
    """Bytes in memory that tell their place in the file that they come from."""

    def __init__(self, data: bytes, offset: int) -> None:
        self._data, self._offset, self._at = data, offset, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._data[self._at :] if size < 0 else self._data[self._at : self._at + size]
        self._at += len(data)
        return data

    def tell(self) -> int:
        return self._offset + self._at

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> "_Stored":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
