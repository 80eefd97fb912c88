"""Stage 2: documents files -> every picture that they name, fetched once, verified, and stored by its hash."""

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import PCollection

from filters import url as url_rules
from filters.text import url_key
from mmc4_builder import warc
from mmc4_builder.commits import Commit
from mmc4_builder.fetch import Fetched, fetch_all
from mmc4_builder.images import ImageError, StoredImage, normalise
from mmc4_builder.workspace import Unit, Workspace, partition, read_rows
from pipelines.archive import FollowRedirects, host_key, newest, warc_path
from pipelines.config import ImagesConfig
from pipelines.schemas import ARCHIVED, IMAGES, MENTIONS, OCCURRENCES, TOTALS
from pipelines.units import Committed, Exchange, Run, Step

AHEAD = 512  # URLs whose pictures may be in memory, waiting for their turn in the tar


def mention(unit: Unit, workspace: Workspace, *, config: ImagesConfig, buckets: int) -> None:
    """One documents file -> the URLs of its pictures that the rules let pass, to the buckets of their hosts."""
    named: Counter[str] = Counter()
    for row in read_rows(workspace.path(f"documents/{unit.name}.parquet"), ["images"]):
        seen: set[str] = set()
        for image in row["images"]:
            url = image["url"]
            reason = url_rules.reject(url, rules=config.urls)
            workspace.tally("mentions", reason or ("repeated_in_document" if url in seen else None))
            if reason is None:
                seen.add(url)
        named.update(seen)
    urls = sorted(named)
    columns = [[host_key(u) for u in urls], urls, [unit.name] * len(urls), [named[u] for u in urls]]
    workspace.leave("mentions", partition(pa.table(columns, schema=MENTIONS), "key", buckets))


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """Bytes that may be a picture, and where they came from."""

    data: bytes
    origin: str  # archive or live
    final_url: str
    fetched: str  # ISO time at which the bytes were seen
    headers: tuple[tuple[str, str], ...] = ()
    warc: str | None = None
    warc_offset: int | None = None


Outcome = tuple[Got | None, StoredImage | None, str | None]  # what came, what it became, why nothing is kept


def store(unit: Unit, workspace: Workspace, *, config: ImagesConfig, crawl_root: str, buckets: int) -> None:
    """One bucket of hosts -> a tar of its pictures, a row for each URL, and how often each picture is shown."""
    mentions = _by_url(workspace.received("mentions", MENTIONS))
    archived = held(workspace, crawl_root) if config.source != "live" else {}
    shown: Counter[int] = Counter()
    name = f"images/{unit.name}.tar"
    with (
        workspace.create(name) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT, bufsize=1 << 20) as tar,
        workspace.parquet(f"images/{unit.name}.parquet", IMAGES) as rows,
    ):
        kept = TarStore(tar, name)
        for url, (got, image, reason) in outcomes(sorted(mentions, key=url_key), archived, config):
            units, documents = mentions[url]
            workspace.tally("urls", reason)
            rows.append({**image_row(url, got, image, reason, kept), "units": units, "documents": documents})
            if image:
                shown[image.phash] += documents
    columns = [list(shown), [unit.name] * len(shown), list(shown.values())]
    table = pa.table(columns, schema=OCCURRENCES)
    workspace.leave("occurrences", partition(table, "key", buckets))


def held(workspace: Workspace, crawl_root: str) -> dict[str, dict[str, Any]]:
    """url -> the record of the crawl that has its picture."""
    own, led_to = (workspace.received(exchange, ARCHIVED) for exchange in ("archive", "aliased"))
    rows = {**newest(led_to), **newest(own)}
    return {url: {**row, "path": warc_path(crawl_root, row["warc"])} for url, row in rows.items()}


def outcomes(
    urls: list[str], archived: dict[str, dict[str, Any]], config: ImagesConfig
) -> Iterator[tuple[str, Outcome]]:
    """What became of each URL, in the order given, which had better mix the hosts. The archive is asked first."""
    pending = iter(urls)
    while chunk := list(islice(pending, AHEAD)):
        done: dict[str, Outcome] = {}
        for url in chunk:
            if url in archived:
                done[url] = _settle(*read_archived(archived[url]), config)
        if config.source != "archive" and config.fetch is not None:
            wanted = [url for url in chunk if url not in done or done[url][1] is None]
            for fetched in fetch_all(wanted, config.fetch):
                done[fetched.url] = _settle(*_fetched(fetched), config)
        yield from ((url, done.get(url, (None, None, "missing"))) for url in chunk)


def read_archived(row: dict[str, Any]) -> tuple[Got | None, str | None]:
    """The picture that a WARC file holds at an offset."""
    try:
        record = warc.read_record(row["path"], row["offset"], row["length"])
    except warc.WarcError as error:
        return None, error.reason
    return Got(
        data=record.payload,
        origin="archive",
        final_url=record.url,
        fetched=record.timestamp,
        headers=record.headers[:64],
        warc=row["warc"],
        warc_offset=row["offset"],
    ), None


def _fetched(fetched: Fetched) -> tuple[Got | None, str | None]:
    if fetched.data is None:
        return None, fetched.reason
    return Got(
        data=fetched.data,
        origin="live",
        final_url=fetched.final_url,
        fetched=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        headers=fetched.headers,
    ), None


def image_row(
    url: str, got: Got | None, image: StoredImage | None, reason: str | None, store: "TarStore"
) -> dict[str, Any]:
    """A row of `images`: what was found behind one URL. The picture goes into the tar, once for each hash."""
    row: dict[str, Any] = {"url": url, "reason": reason}
    if got:
        headers = [{"name": name, "value": value} for name, value in got.headers]
        row |= {"origin": got.origin, "final_url": got.final_url, "fetched": got.fetched, "headers": headers}
        row |= {"warc": got.warc, "warc_offset": got.warc_offset}
    if image:
        row |= {name: getattr(image, name) for name in IMAGE_FIELDS}
        row |= {"store": store.name, **store.add(image.sha256, image.data)}
    return row


IMAGE_FIELDS = (
    "sha256",
    "phash",
    "width",
    "height",
    "original_sha256",
    "original_format",
    "original_width",
    "original_height",
)


class TarStore:
    """Pictures under their hash in a tar; `add` tells where the bytes lie, so that readers need no index of it."""

    def __init__(self, tar: tarfile.TarFile, name: str) -> None:
        self.name = name
        self._places: dict[str, dict[str, int]] = {}
        self._tar = tar

    def add(self, sha256: str, data: bytes) -> dict[str, int]:
        if sha256 not in self._places:
            info = tarfile.TarInfo(f"{sha256}.jpg")
            info.size = len(data)
            place = {"store_offset": self._tar.offset + tarfile.BLOCKSIZE, "store_length": len(data)}
            self._tar.addfile(info, io.BytesIO(data))
            self._places[sha256] = place
        return self._places[sha256]


def _settle(got: Got | None, reason: str | None, config: ImagesConfig) -> Outcome:
    if got is None:
        return None, None, reason
    try:
        return got, normalise(got.data, config.rules), None
    except ImageError as error:
        return got, None, error.reason


def _by_url(mentions: pa.Table) -> dict[str, tuple[list[str], int]]:
    """url -> documents files that name it, and how many documents."""
    urls: dict[str, tuple[list[str], int]] = {}
    for row in mentions.to_pylist():
        units, documents = urls.get(row["url"], ([], 0))
        urls[row["url"]] = ([*units, row["unit"]], documents + row["documents"])
    return urls


def count_occurrences(unit: Unit, workspace: Workspace) -> None:
    """One bucket of perceptual hashes -> how many documents show each picture, back to the tars that hold it."""
    table = workspace.received("occurrences", OCCURRENCES)
    totals: Counter[int] = Counter()
    holders: dict[str, list[int]] = {}
    for key, holder, documents in zip(*(table[c].to_pylist() for c in OCCURRENCES.names), strict=True):
        totals[key] += documents
        holders.setdefault(holder, []).append(key)
    tables = {h: pa.table([keys, [totals[k] for k in keys]], schema=TOTALS) for h, keys in holders.items()}
    workspace.leave("totals", tables)


@dataclass
class Images(beam.PTransform):
    """Documents files -> tars of pictures."""

    root: str
    crawl_root: str
    fingerprint: str
    config: ImagesConfig
    files: tuple[Unit, ...]
    buckets: tuple[Unit, ...]

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        step = partial(Step, root=self.root, fingerprint=self.fingerprint)
        count = len(self.buckets)
        store_step = partial(store, config=self.config, crawl_root=self.crawl_root, buckets=count)
        files = pipeline | "Files" >> beam.Create(self.files)
        mentions = files | Run(step(name="mention", run=partial(mention, config=self.config, buckets=count)))
        archive = files | Committed(self.root, "extract") | FollowRedirects(self.root, self.fingerprint, self.buckets)
        stored = (
            (mentions, archive)
            | beam.Flatten()
            | Exchange(("mentions", "archive", "aliased"), self.buckets)
            | Run(step(name="images", run=store_step))
        )
        return stored | Exchange(("occurrences",), self.buckets) | Run(step(name="occurrences", run=count_occurrences))
