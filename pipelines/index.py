"""The pages of released C4, found in Common Crawl's columnar index and fetched without the rest of their WARC files.

Of several captures of a document's URL (in C4's normal form) the one that is nearest in time to the document's
timestamp is fetched; of equally near ones the earlier, of equally old ones the first in the crawl. That is the rule by
which `c4.join_c4` chooses among the pages of a crawl that is read as a whole.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import PCollection

from filters.text import url_key
from mmc4_builder import transport, warc
from mmc4_builder.columnar_index import (
    ColumnarIndexError,
    IndexPart,
    IndexRules,
    normalized,
    not_a_capture,
    surt_prefixes,
    within,
)
from mmc4_builder.range_file import open_ranges
from mmc4_builder.urls import normalize_url
from mmc4_builder.workspace import Unit, Workspace, partition, read_rows
from pipelines.archive import warc_path
from pipelines.c4 import join_c4, read_c4
from pipelines.config import DocumentsConfig
from pipelines.ranges import RANGES, count_asked
from pipelines.schemas import C4_CLAIMS
from pipelines.units import Exchange, Run, Step, units

MAP = "index/map.parquet"
LETTERS = 1000  # documents a bucket that are named in full; of another crawl than C4's nearly all would be

# index/map.parquet: what each row group of the index may hold.
GROUPS = pa.schema([("part", pa.string()), ("lowest", pa.string()), ("highest", pa.string())])
# exchange/wanted: URLs of documents, to the parts of the index that may know them; exchange/sought: to their bucket.
WANTED = pa.schema([("url", pa.string())])
SOUGHT = pa.schema([("key", pa.uint64()), ("timestamp", pa.string()), ("url", pa.string())])
# exchange/captures: where the index says that a URL was captured, to the bucket of that URL.
CAPTURES = pa.schema(
    [("key", pa.uint64()), ("seconds", pa.int64()), ("warc", pa.string()), ("offset", pa.int64()),
     ("length", pa.int64())]
)  # fmt: skip


def map_index(unit: Unit, workspace: Workspace, *, rules: IndexRules, crawl_root: str) -> None:
    """The footers of all parts -> which URLs each row group may hold."""
    with workspace.parquet(MAP, GROUPS) as rows:
        for part in parts_of(rules):
            with _opened(part.inputs[0], crawl_root, workspace) as opened:
                rows.extend({"part": part.name, "lowest": g.lowest, "highest": g.highest} for g in opened.groups)


def parts_of(rules: IndexRules) -> tuple[Unit, ...]:
    """A unit for each Parquet file of the index."""
    return _numbered(rules.parts)


def _numbered(paths: tuple[str, ...]) -> tuple[Unit, ...]:
    return tuple(Unit(name=f"{number:05d}", inputs=(path,)) for number, path in enumerate(paths))


@contextmanager
def _opened(name: str, crawl_root: str, workspace: Workspace) -> Iterator[IndexPart]:
    """A part of the index; what was asked for is counted."""
    path = warc_path(crawl_root, name)
    with open_ranges(path) as source:
        try:
            yield IndexPart(path, source)
        except transport.NotFound as error:
            raise ColumnarIndexError(f"a part of the index is missing ({error}); build without --index") from error
        finally:
            count_asked(workspace, "index", source)


def route(unit: Unit, workspace: Workspace) -> None:
    """Bucket of released documents -> their URLs without the text, to the parts of the index that may know them."""
    documents = workspace.received("c4", C4_CLAIMS).select(SOUGHT.names)
    workspace.leave("sought", {unit.name: documents} if len(documents) else {})
    urls: dict[str, set[str]] = {}
    for url in documents["url"].to_pylist():
        for prefix in surt_prefixes(url):
            urls.setdefault(prefix, set()).add(url)
    prefixes = sorted(urls)
    wanted: dict[str, set[str]] = {}
    for row in read_rows(workspace.path(MAP)):
        for at in within(prefixes, row["lowest"], row["highest"]):
            wanted.setdefault(row["part"], set()).update(urls[prefixes[at]])
    workspace.leave("wanted", {part: pa.table([sorted(some)], schema=WANTED) for part, some in wanted.items()})


def look_up(unit: Unit, workspace: Workspace, *, config: DocumentsConfig, crawl_root: str, buckets: int) -> None:
    """One part of the index -> the captures of the URLs that are wanted, to the buckets of these URLs."""
    rules = config.index
    assert rules is not None
    wanted: dict[str, set[str]] = {}
    for url in workspace.received("wanted", WANTED)["url"].to_pylist():
        for prefix in surt_prefixes(url):
            wanted.setdefault(prefix, set()).add(normalize_url(url))
    prefixes = sorted(wanted)
    found: list[pa.Table] = []
    if wanted:
        with _opened(unit.inputs[0], crawl_root, workspace) as part:
            for group in part.groups:
                some = [wanted[prefixes[at]] for at in within(prefixes, group.lowest, group.highest)]
                workspace.tally("groups", None if some else "pruned")
                urls = pa.array(sorted(set().union(*some)), pa.string())
                rows = part.rows(group, rules.gap) if some else ()
                found += [captures(batch, urls, workspace, config.warc) for batch in rows]
    table = pa.concat_tables([CAPTURES.empty_table(), *found])
    workspace.leave("captures", partition(table, "key", buckets))


def captures(batch: pa.RecordBatch, wanted: pa.Array, workspace: Workspace, limits: warc.WarcLimits) -> pa.Table:
    """Those rows of the index that are pages of the wanted URLs, counted."""
    names = normalized(batch.column("url"))
    chosen = pc.is_in(names, value_set=wanted)
    rows = batch.filter(chosen).to_pylist()
    kept = []
    for row, name in zip(rows, names.filter(chosen).to_pylist(), strict=True):
        reason = not_a_capture(row, limits.max_stored)
        if reason in ("bad_time", "bad_range"):
            place = {name: row[f"warc_{name}"] for name in ("filename", "record_offset", "record_length")}
            workspace.bury("captures", reason, **place)
            continue
        workspace.tally("captures", reason)
        if reason is None:
            kept.append(_capture(row, name))
    return pa.Table.from_pylist(kept, schema=CAPTURES)


def _capture(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {
        "key": url_key(name),
        "seconds": _seconds(row["fetch_time"]),
        "warc": row["warc_filename"],
        "offset": row["warc_record_offset"],
        "length": row["warc_record_length"],
    }


def _seconds(time: datetime) -> int:
    """Since 1970; the index tells UTC, with a zone or without."""
    return int(time.replace(tzinfo=timezone.utc, microsecond=0).timestamp())


def pick(unit: Unit, workspace: Workspace, *, files: tuple[Unit, ...]) -> None:
    """Bucket of URLs -> for each of its documents the record to fetch, to the unit of that WARC file."""
    places = {name: (number, file.name) for number, file in enumerate(files) for name in file.inputs}
    order = {name: number for number, name in enumerate(places)}
    known: dict[int, list[tuple[int, int, int, int, str]]] = {}
    elsewhere: set[int] = set()
    for row in workspace.received("captures", CAPTURES).to_pylist():
        if row["warc"] not in places:
            elsewhere.add(row["key"])
            continue
        capture = (row["seconds"], order[row["warc"]], row["offset"], row["length"], row["warc"])
        known.setdefault(row["key"], []).append(capture)
    chosen: dict[str, set[tuple[str, int, int, int]]] = {}
    letters = LETTERS
    for document in workspace.received("sought", SOUGHT).to_pylist():
        key, wanted = document["key"], _instant(document["timestamp"])
        if found := known.get(key):
            _, _, offset, length, name = min(found, key=lambda c: (abs(c[0] - wanted), *c))
            chosen.setdefault(places[name][1], set()).add((name, offset, length, key))
            workspace.tally("lookups", None)
        elif key in elsewhere:
            workspace.tally("lookups", "in_other_warcs")
        elif letters > 0:
            letters -= 1
            workspace.bury("lookups", "not_in_index", url=document["url"], timestamp=document["timestamp"])
        else:
            workspace.tally("lookups", "not_in_index")
    tables = {to: _ranges_table(sorted(some)) for to, some in chosen.items()}
    workspace.leave("ranges", tables)


def _instant(timestamp: str) -> int:
    return _seconds(datetime.fromisoformat(timestamp[:19]))


def _ranges_table(rows: list[tuple[str, int, int, int]]) -> pa.Table:
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=RANGES)


@dataclass
class FindPages(beam.PTransform):
    """Released C4 -> units of the documents step with the text of their pages, as `c4.JoinC4` leaves them."""

    root: str
    fingerprint: str
    crawl_root: str
    config: DocumentsConfig
    files: tuple[Unit, ...]
    buckets: tuple[Unit, ...]
    extract: Step

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Unit]:
        rules = self.config.index
        assert rules is not None
        step = partial(Step, root=self.root, fingerprint=self.fingerprint)
        count = len(self.buckets)
        mapping = partial(map_index, rules=rules, crawl_root=self.crawl_root)
        looking = partial(look_up, config=self.config, crawl_root=self.crawl_root, buckets=count)
        mapped = pipeline | "Index" >> beam.Create(units(1)) | Run(step(name="map_index", run=mapping))
        released = (
            pipeline
            | "C4 files" >> beam.Create(_numbered(self.config.c4))
            | Run(step(name="read_c4", run=partial(read_c4, buckets=count)))
        )
        routed = self._gather((mapped, released), ("c4",), self.buckets) | Run(step(name="route", run=route))
        found = routed | Exchange(("wanted",), parts_of(rules)) | Run(step(name="look_up", run=looking))
        sought = self._gather((routed, found), ("sought", "captures"), self.buckets)
        picked = sought | Run(step(name="pick", run=partial(pick, files=self.files)))
        extracted = picked | Exchange(("ranges",), self.files) | Run(self.extract)
        both = self._gather((extracted, released), ("urls", "c4"), self.buckets)
        return both | Run(step(name="join_c4", run=join_c4)) | Exchange(("c4_texts",), self.files)

    def _gather(
        self, sources: tuple[PCollection[Any], ...], exchanges: tuple[str, ...], to: tuple[Unit, ...]
    ) -> PCollection[Unit]:
        name = ", ".join(exchanges)
        gathered: PCollection[Unit] = sources | f"All for {name}" >> beam.Flatten() | Exchange(exchanges, to)
        return gathered
