"""Stage 2: documents files -> every picture that they name, fetched once, verified, and stored by its hash."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import PCollection

from filters import url as url_rules
from filters.text import url_key
from mmc4_builder import timings
from mmc4_builder.commits import Commit
from mmc4_builder.workspace import Rows, Unit, Workspace, partition, read_rows
from pipelines import host_files, image_store
from pipelines.archive import FollowRedirects, host_key, newest, warc_path
from pipelines.config import ImagesConfig, PreviousBuild
from pipelines.fetching import KeepOut, Outcome, Sources, outcomes
from pipelines.host_files import CrawlTime, LiveFiles, origin_of
from pipelines.host_times import HostTimes
from pipelines.picture_tar import Waiting, open_tar, placed
from pipelines.previous_copies import settled
from pipelines.previous_images import Before, bucket_units, count_before, look_up
from pipelines.schemas import (
    ARCHIVED,
    FREQUENT,
    HOST_FILES,
    IMAGES,
    IMPORTED,
    MENTIONS,
    OCCURRENCES,
    PAGE_STATEMENTS,
    PAGE_URLS,
    TOTALS,
)
from pipelines.spool import Spool
from pipelines.units import Committed, Exchange, Run, Step, units

Mentions = dict[str, tuple[list[str], int]]  # url -> documents files that name it, and how many documents
RECEIVED = ("mentions", "pages", "host_files", "archive", "aliased", "imported")
Builds = tuple[PreviousBuild, ...]


def mention(unit: Unit, workspace: Workspace, *, config: ImagesConfig, buckets: int) -> None:
    """One documents file -> the URLs of its pictures that the rules let pass, and of its pages, to their hosts."""
    named: Counter[str] = Counter()
    pages: list[str] = []
    for row in read_rows(workspace.path(f"documents/{unit.name}.parquet"), ["url", "images"]):
        pages.append(row["url"])
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
    columns = [[host_key(u) for u in pages], pages, [unit.name] * len(pages), list(range(len(pages)))]
    workspace.leave("pages", partition(pa.table(columns, schema=PAGE_URLS), "key", buckets))


def store(
    unit: Unit, workspace: Workspace, *, config: ImagesConfig, crawl_root: str, buckets: int, previous: Builds = ()
) -> None:
    """One bucket of hosts -> a tar of its pictures, a row for each URL, and everything that its hosts said."""
    mentions = by_url(workspace.received("mentions", MENTIONS))
    crawl_time = CrawlTime(workspace.received("host_files", HOST_FILES), config.optout.agents)
    shown: Counter[int] = Counter()
    with Spool() as spool:
        live = LiveFiles(spool)
        sources = Sources(
            config=config,
            keep_out=KeepOut.of(workspace.root, config),
            at_rest=at_rest(workspace, config, crawl_root),
            crawl_time=crawl_time,
            keep_host_file=live.keep,
        )
        urls = sorted(mentions, key=url_key)
        waiting = collect(urls, sources, workspace, spool, look_up(unit, previous, mentions, buckets, spool))
        with (
            workspace.parquet(f"images/{unit.name}.parquet", IMAGES) as rows,
            open_tar(workspace, f"images/{unit.name}.tar") as tar,
        ):
            for row, weight in placed(urls, waiting, tar):
                row["units"], row["documents"] = mentions[row["url"]]
                workspace.tally("urls", row["reason"])
                rows.append(row, weight=weight)
                note_shown(shown, row)
        tell_pages(workspace, crawl_time)
        with workspace.parquet(f"images/hosts/{unit.name}.parquet", HOST_FILES) as hosts:
            write_host_files(hosts, crawl_time, live)
    leave_occurrences(workspace, shown, buckets)


def collect(
    urls: list[str], sources: Sources, workspace: Workspace, spool: Spool, before: Before | None = None
) -> Waiting:
    """What became of all URLs, put aside; requests and bytes are counted, beside the funnel."""
    waiting = Waiting(spool)
    hosts = HostTimes()
    sources = replace(sources, note_fetched=hosts.note)
    for url, outcome in settled(urls, sources, before, workspace) if before else outcomes(urls, sources):
        waiting.put(url, outcome)
        _count(workspace, outcome)
    timings.note_hosts(workspace.root, workspace.step, workspace.unit.name, hosts.found)
    return waiting


def _count(workspace: Workspace, outcome: Outcome) -> None:
    workspace.counts["requests"] += outcome.asked
    workspace.counts["bytes"] += len(outcome.got.data) if outcome.got else 0


def at_rest(workspace: Workspace, config: ImagesConfig, crawl_root: str) -> dict[str, dict[str, Any]]:
    """url -> where its picture lies that need not be fetched: in the crawl, or in img2dataset's tars."""
    if config.source == "live":
        return {}
    if config.source == "store":
        return image_store.best(workspace.received("imported", IMPORTED))
    own, led_to = (workspace.received(exchange, ARCHIVED) for exchange in ("archive", "aliased"))
    rows = {**newest(led_to), **newest(own)}
    return {url: {**row, "path": warc_path(crawl_root, row["warc"])} for url, row in rows.items()}


def tell_pages(workspace: Workspace, crawl_time: CrawlTime) -> None:
    """What the hosts of the bucket said of their pages when they were crawled, to the documents files of these."""
    pages = workspace.received("pages", PAGE_URLS).to_pylist()
    told: dict[str, list[dict[str, Any]]] = {}
    for page in sorted(pages, key=lambda page: (origin_of(page["url"]), page["unit"], page["row"])):
        if said := crawl_time.statements(page["url"]):
            told.setdefault(page["unit"], []).append({"row": page["row"], "statements": [asdict(one) for one in said]})
    tables = {name: pa.Table.from_pylist(rows, schema=PAGE_STATEMENTS) for name, rows in told.items()}
    workspace.leave("page_statements", tables)


def write_host_files(hosts: Rows, crawl_time: CrawlTime, live: LiveFiles) -> None:
    """Every robots.txt and tdmrep.json that was consulted: the audit can be repeated without the network."""
    for found in (crawl_time.consulted(), live.rows()):
        host_files.write(found, hosts)


def note_shown(shown: Counter[int], row: dict[str, Any]) -> None:
    """Count in how many documents a stored picture is shown."""
    if row.get("sha256"):
        shown[row["phash"]] += row["documents"]


def leave_occurrences(workspace: Workspace, shown: Counter[int], buckets: int) -> None:
    """How often each picture of this bucket is shown, to the buckets of perceptual hashes."""
    columns = [list(shown), [workspace.unit.name] * len(shown), list(shown.values())]
    workspace.leave("occurrences", partition(pa.table(columns, schema=OCCURRENCES), "key", buckets))


def by_url(mentions: pa.Table) -> Mentions:
    """What the documents files say of each URL, added up."""
    urls: Mentions = {}
    for row in mentions.to_pylist():
        names, documents = urls.get(row["url"], ([], 0))
        urls[row["url"]] = ([*names, row["unit"]], documents + row["documents"])
    return urls


def count_occurrences(unit: Unit, workspace: Workspace, *, frequent_from: int) -> None:
    """One bucket of perceptual hashes -> how many documents show each picture, back to the tars that hold it.

    What many documents show goes to one unit as well: near copies of it are counted with it there.
    """
    table = workspace.received("occurrences", OCCURRENCES)
    totals: Counter[int] = Counter()
    for row in workspace.received("previous_occurrences", TOTALS).to_pylist():
        totals[row["key"]] += row["documents"]
    holders: dict[str, list[int]] = {}
    for key, holder, documents in zip(*(table[c].to_pylist() for c in OCCURRENCES.names), strict=True):
        totals[key] += documents
        holders.setdefault(holder, []).append(key)
    tables = {h: pa.table([keys, [totals[k] for k in keys]], schema=TOTALS) for h, keys in holders.items()}
    workspace.leave("totals", tables)
    many = sorted(key for key, documents in totals.items() if documents >= frequent_from)
    frequent = pa.table([many, [totals[key] for key in many]], schema=FREQUENT)
    workspace.leave("frequent", {units(1)[0].name: frequent} if many else {})


def list_frequent(unit: Unit, workspace: Workspace) -> None:
    """All pictures that many documents show -> one file, in order of their hashes."""
    found = workspace.received("frequent", FREQUENT).sort_by("key")
    with workspace.parquet("images/frequent.parquet", FREQUENT) as rows:
        rows.extend(found.to_pylist())


@dataclass
class Images(beam.PTransform):
    """Documents files -> tars of pictures."""

    root: str
    crawl_root: str
    fingerprint: str
    config: ImagesConfig
    files: tuple[Unit, ...]
    buckets: tuple[Unit, ...]
    stores: tuple[Unit, ...] = ()  # img2dataset's tars
    previous: Builds = ()

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        count = len(self.buckets)
        mentioning = self._step("mention", partial(mention, config=self.config, buckets=count))
        from_all = partial(store, config=self.config, crawl_root=self.crawl_root, previous=self.previous)
        storing = self._step("images", partial(from_all, buckets=count))
        counting = self._step("occurrences", partial(count_occurrences, frequent_from=self.config.frequent_from))
        files = pipeline | "Files" >> beam.Create(self.files)
        found = files | Committed(self.root, "extract")
        sources = [files | mentioning, found | FollowRedirects(self.root, self.fingerprint, self.buckets)]
        if self.stores:
            indexing = self._step("index_store", partial(image_store.index_store, buckets=count))
            sources.append(pipeline | "Stores" >> beam.Create(self.stores) | indexing)
        shown = [sources | "Sources" >> beam.Flatten() | Exchange(RECEIVED, self.buckets) | storing]
        if self.previous:
            before = pipeline | "Earlier buckets" >> beam.Create(bucket_units(self.previous))
            looking = partial(count_before, builds=self.previous, buckets=count)
            shown.append(before | self._step("previous_images", looking))
        return (
            shown
            | "All shown" >> beam.Flatten()
            | Exchange(("occurrences", "previous_occurrences"), self.buckets)
            | counting
            | Exchange(("frequent",), units(1))
            | self._step("frequent", list_frequent)
        )

    def _step(self, name: str, run: Callable[..., None]) -> Run:
        return Run(Step(name=name, root=self.root, fingerprint=self.fingerprint, run=run))
