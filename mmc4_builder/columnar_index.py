"""Common Crawl's columnar index: which part of it can know a page, and which ranges to ask for together.

The table lies at cc-index/table/cc-main/warc/crawl=<crawl>/subset=warc/*.parquet, one row a capture, sorted by
`url_surtkey` inside a file (commoncrawl/cc-index-table, README and cc-index-schema-flat.json).
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmc4_builder.http_rules import TransportError
from mmc4_builder.range_file import RangeFile
from mmc4_builder.urls import host_of

SORTED_BY = "url_surtkey"
COLUMNS = (
    "url",
    "fetch_time",
    "fetch_status",
    "content_mime_type",
    "content_mime_detected",
    "warc_filename",
    "warc_record_offset",
    "warc_record_length",
)
HTML = ("text/html", "application/xhtml+xml")
UNSAID = ("", "unk", "unknown", None)  # how indexes tell that a server named no type
BATCH = 1 << 16  # rows that are in memory as such at a time
C4_BYTES = 836  # of a document in c4-train.*.json.gz: 305 GB for 364.9 million (allenai/c4)
RECORD_BYTES = 22_600  # of a page in a WARC file: CC-MAIN-2019-09 has 2,914 million in 59.86 TiB
UNIT_BYTES = 4 << 20
MAX_TOGETHER = 256  # WARC files a unit, for each is a request at least
MAX_GROUP = 2 << 30  # bytes of these columns of one row group, unpacked; real ones have some hundred MB
SLACK = 100  # bytes that Arrow reads behind a column, for old writers forgot a header in its length (PARQUET-816)
_PORTS = {"http": 80, "https": 443}
_WWW = re.compile(r"www\d*\.")


class ColumnarIndexError(Exception):
    """The index cannot be used. The text names the file and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRules:
    """Which index is asked, and how its answers are fetched.

    Two records that lie near each other cost least in one request where the bytes between them take less time than
    another request: up to `gap` = request_seconds x bytes_per_second. Each gap is a choice of its own, so this
    threshold gives the least sum of request_seconds x requests + bytes / bytes_per_second, blocks that are full
    aside. The defaults are one round trip to a CDN and its store, and one connection to it.
    """

    parts: tuple[str, ...]  # Parquet files of the subset `warc`, below the crawl's root
    files_per_unit: int = 1  # WARC files whose records are fetched by one unit of work
    request_seconds: float = 0.05
    bytes_per_second: float = 20e6
    max_block: int = 8 << 20  # bytes of one request, unless a single record has more

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("an index wants at least one Parquet file")
        if self.files_per_unit < 1 or self.max_block < 1 or self.request_seconds < 0 or self.bytes_per_second <= 0:
            raise ValueError(f"files_per_unit, max_block and the speeds must be positive, got {self}")

    @property
    def gap(self) -> int:
        """Bytes between two records that are worth reading rather than asking twice."""
        return int(self.request_seconds * self.bytes_per_second)


def files_together(released_bytes: int, warc_files: int) -> int:
    """How many WARC files one unit takes so that its records come to UNIT_BYTES or more: few of many, else 1."""
    share = released_bytes / C4_BYTES * RECORD_BYTES / max(1, warc_files)
    return max(1, min(MAX_TOGETHER, warc_files, round(UNIT_BYTES / max(1.0, share))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One row group. `lowest` and `highest` enclose its sort keys; without statistics they enclose everything."""

    number: int
    lowest: str
    highest: str | None
    chunks: tuple[tuple[int, int], ...]  # offset and length of COLUMNS in the file
    unpacked: int  # bytes of COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One request, and the (offset, length) of the records that it is made for."""

    offset: int
    length: int
    records: tuple[tuple[int, int], ...]


def surt_prefixes(url: str) -> tuple[str, ...]:
    """How the sort keys of all captures of this host begin: `https://www.bbc.co.uk/a` -> `uk,co,bbc)`, sorted.

    Only the host is used, for paths and queries are rewritten by rules that differ between versions of the crawler.
    The key drops a leading www, www2, ...; the host as it stands is looked for too, and an address in both orders.
    """
    host = host_of(url)
    if not host:
        return ()
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return ()
    end = ")" if port in (None, _PORTS.get(parts.scheme.lower())) else f":{port})"
    names = {host, _WWW.sub("", host, count=1) if _WWW.match(host) else host}
    keys = {",".join(reversed(name.split("."))) for name in names}
    if re.fullmatch(r"[0-9.]+", host) or ":" in host:
        keys.add(host)
    return tuple(sorted(key + end for key in keys))


def within(prefixes: Sequence[str], lowest: str, highest: str | None) -> list[int]:
    """Places, in a sorted list of prefixes, of those that some key between lowest and highest may begin with."""
    start = bisect_left(prefixes, lowest)
    stop = len(prefixes) if highest is None else bisect_right(prefixes, highest)
    found = list(range(start, max(start, stop)))
    own = lowest[: lowest.find(")") + 1]  # of the host that the group begins in the middle of
    at = bisect_left(prefixes, own) if own else start
    return [at, *found] if at < start and prefixes[at] == own else found


def read_groups(metadata: pq.FileMetaData, path: str) -> tuple[Group, ...]:
    """The row groups of one file of the index. ColumnarIndexError where a column is missing."""
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    missing = [name for name in (SORTED_BY, *COLUMNS) if name not in names]
    if missing:
        raise ColumnarIndexError(f"{path} is no file of Common Crawl's index: it has no column {', '.join(missing)}")
    places = [names.index(name) for name in COLUMNS]
    return tuple(
        _group(metadata.row_group(number), number, names.index(SORTED_BY), places)
        for number in range(metadata.num_row_groups)
    )


def _group(group: pq.RowGroupMetaData, number: int, key: int, places: Sequence[int]) -> Group:
    known = group.column(key).statistics
    bounded = known is not None and known.has_min_max
    columns = [group.column(place) for place in places]
    return Group(
        number=number,
        lowest=_text(known.min) if bounded else "",
        highest=_text(known.max) if bounded else None,
        chunks=tuple(_chunk(column) for column in columns),
        unpacked=sum(column.total_uncompressed_size for column in columns),
    )


def _chunk(column: pq.ColumnChunkMetaData) -> tuple[int, int]:
    start = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset is not None:
        start = min(start, column.dictionary_page_offset)
    return start, column.total_compressed_size


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def normalized(urls: pa.Array) -> pa.Array:
    """`urls.normalize_url` for a whole column at once."""
    bare = pc.replace_substring_regex(urls, r"https?://(www\.)?", "")
    return pc.utf8_rtrim(pc.replace_substring_regex(bare, r"\?(utm_|ref|feed).*", ""), "/")


def not_a_capture(row: Mapping[str, Any], max_stored: int) -> str | None:
    """Why a row of the index leads to no page, or None; those of `documents.not_a_page`, as far as it tells."""
    if row["fetch_status"] != 200:
        return "http_status"
    kind = row["content_mime_type"]
    kind = row["content_mime_detected"] if kind in UNSAID else kind.partition(";")[0].strip().lower()
    if kind not in (*HTML, *UNSAID):
        return "not_html"
    if not isinstance(row["fetch_time"], datetime):
        return "bad_time"
    offset, length = row["warc_record_offset"], row["warc_record_length"]
    named = row["warc_filename"] and offset is not None and length is not None
    return None if named and offset >= 0 and 0 < length <= max_stored else "bad_range"


def coalesce(records: Iterable[tuple[int, int]], gap: int, max_block: int) -> list[Block]:
    """Sorted (offset, length) of one file -> requests: records at most `gap` apart share one of `max_block` bytes."""
    blocks: list[Block] = []
    together: list[tuple[int, int]] = []
    start = end = 0
    for offset, length in records:
        joined = max(end, offset + length)
        if together and (offset - end > gap or joined - start > max_block):
            blocks.append(Block(offset=start, length=end - start, records=tuple(together)))
            together = []
        if not together:
            start, joined = offset, offset + length
        together.append((offset, length))
        end = joined
    if together:
        blocks.append(Block(offset=start, length=end - start, records=tuple(together)))
    return blocks


class IndexPart:
    """One Parquet file of the index: its row groups, and their rows as far as they are wanted."""

    def __init__(self, path: str, source: RangeFile) -> None:
        self._path = path
        self._source = source
        try:
            self._file = pq.ParquetFile(source, pre_buffer=False)  # we do, and know what a request costs
        except TransportError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ColumnarIndexError(f"{path} is no Parquet file ({error}); fetch it again") from error
        self.groups = read_groups(self._file.metadata, path)

    def rows(self, group: Group, gap: int) -> Iterator[pa.RecordBatch]:
        """Rows of one group, COLUMNS alone. Columns at most `gap` bytes apart are fetched together."""
        if group.unpacked > MAX_GROUP:
            raise ColumnarIndexError(
                f"row group {group.number} of {self._path} has {group.unpacked} bytes, more than {MAX_GROUP} allowed"
            )
        chunks = sorted((start, length + SLACK) for start, length in group.chunks)
        self._source.hold((block.offset, block.length) for block in coalesce(chunks, gap, MAX_GROUP))
        try:
            yield from self._file.iter_batches(BATCH, [group.number], list(COLUMNS), use_threads=False)
        except TransportError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ColumnarIndexError(f"{self._path}, row group {group.number} is damaged: {error}") from error
