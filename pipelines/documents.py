"""Stage 1: WARC files -> C4 documents with the pictures of their pages, in DOM order."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import PCollection

from filters import language, text
from mmc4_builder import html, sentences, tombstones, transport, warc
from mmc4_builder.charset import decode
from mmc4_builder.commits import Commit
from mmc4_builder.key_lists import KeyList
from mmc4_builder.records import Page
from mmc4_builder.signals import header_signals
from mmc4_builder.urls import normalize_url
from mmc4_builder.workspace import Unit, Workspace, partition, read_rows
from pipelines.archive import Archive, warc_path
from pipelines.c4 import JoinC4, own_text
from pipelines.config import DocumentsConfig, PreviousBuild
from pipelines.dedup import Deduplicate
from pipelines.host_files import HostFileIndex, as_host_file, note_host_file, read_robots
from pipelines.index import FindPages
from pipelines.near_text import NearText
from pipelines.ranges import ranges_of, read_ranges
from pipelines.schemas import C4_TEXTS, DOCUMENTS, LINE_LOSERS, PAGES, URL_CLAIMS, URL_LOSERS
from pipelines.units import Run, Step

HTML_TYPES = ("text/html", "application/xhtml+xml")


def extract(unit: Unit, workspace: Workspace, *, config: DocumentsConfig, crawl_root: str, buckets: int) -> None:
    """WARC files, or ranges of them -> candidate pages, an index of pictures, and what hosts say."""
    claims: list[tuple[int, str, str, int]] = []
    names, responses = sources(unit, workspace, config, crawl_root)
    archive = Archive("")
    host_files = HostFileIndex()
    removed = tombstones.load(workspace.root)
    with workspace.parquet(f"documents/pages/{unit.name}.parquet", PAGES) as rows:
        pages = read_html(responses, workspace, (archive, host_files))
        for record in without_removed(pages, removed, workspace):
            row = candidate(record, archive.warc, workspace, config)
            if row is not None:
                row["images"] = [image for image in row["images"] if not removed.matches_url(image["url"])]
                claims.append((row["url_key"], row["timestamp"], unit.name, len(claims)))
                rows.append(row, weight=sum(map(len, row["lines"])) + 200 * len(row["images"]))
    columns = [[claim[i] for claim in claims] for i in range(len(URL_CLAIMS))]
    workspace.leave("urls", partition(pa.table(columns, schema=URL_CLAIMS), "key", buckets))
    workspace.leave("archive", partition(archive.pictures(), "key", buckets))
    workspace.leave("redirects", archive.redirects())
    for name in names if config.crawl_robots else ():
        read_robots(name, crawl_root, workspace, config.warc, host_files)
    workspace.leave("host_files", partition(host_files.table(), "key", buckets))


Responses = Iterator[tuple[str, warc.Record | warc.BadRecord]]  # each with the name of its WARC file


def sources(
    unit: Unit, workspace: Workspace, config: DocumentsConfig, crawl_root: str
) -> tuple[Sequence[str], Responses]:
    """Which WARC files a unit reads, and the responses that it finds in them."""
    if config.index is None:
        first, *others = unit.inputs
        names = [first, *(other for other in others if not other.isdecimal())]  # a local file's size is beside its name
        return names, chain.from_iterable(read_whole(name, crawl_root, config, workspace) for name in names)
    ranges = ranges_of(unit, workspace)
    return tuple(ranges), read_ranges(ranges, workspace, config.index, (crawl_root, config.warc))


def read_whole(name: str, crawl_root: str, config: DocumentsConfig, workspace: Workspace) -> Responses:
    """Every response of one WARC file, and the file's bytes counted."""
    path = warc_path(crawl_root, name)
    with transport.open_stream(path) as stream:
        for record in warc.read_records(stream, path, limits=config.warc):
            yield name, record
        workspace.counts["crawl.bytes"] += stream.tell()


def read_html(
    responses: Responses, workspace: Workspace, noted: tuple[Archive, HostFileIndex]
) -> Iterator[warc.Record]:
    """The HTML pages; pictures and host files are noted, and everything is counted."""
    archive, host_files = noted
    for archive.warc, record in responses:
        if isinstance(record, warc.BadRecord):
            workspace.bury("records", record.reason, warc=archive.warc, offset=record.offset, detail=record.detail)
            continue
        if as_host_file(record.url):
            workspace.tally("records", "host_file")
            note_host_file(record, archive.warc, workspace, host_files)
            continue
        archived = archive.note(record)
        reason = not_a_page(record)
        workspace.tally("records", "picture" if archived and reason else reason)
        if reason is None:
            yield record


def not_a_page(record: warc.Record) -> str | None:
    """Why a response is no HTML page, or None."""
    if record.status != 200:
        return "http_status"
    return None if record.content_type in HTML_TYPES else "not_html"


def without_removed(records: Iterator[warc.Record], removed: KeyList, workspace: Workspace) -> Iterator[warc.Record]:
    """The pages that nobody had removed from this build."""
    for record in records:
        if removed.matches_url(record.url):
            workspace.tally("pages", "removed")
        else:
            yield record


def candidate(record: warc.Record, name: str, workspace: Workspace, config: DocumentsConfig) -> dict[str, Any] | None:
    """The row of a page that C4's rules for single pages leave, or None, counted."""
    markup, _ = decode(record.payload, record.header("content-type"))
    page = html.parse_page(markup, record.url, config.html)
    if config.c4:
        return page_row(record, name, page, page.lines, range(len(page.lines)))
    clean = text.clean_lines(page.lines, rules=config.text)
    if isinstance(clean, str):
        workspace.tally("pages", clean)
        workspace.tally("lines", "page_dropped", len(page.lines))
        return None
    for reason, count in clean.dropped.items():
        workspace.tally("lines", reason, count)
    return page_row(record, name, page, clean.lines, clean.indices)


def page_row(
    record: warc.Record, name: str, page: Page, lines: Sequence[str], numbers: Sequence[int]
) -> dict[str, Any]:
    """A row of `documents/pages`."""
    return {
        "url": record.url,
        "url_key": text.url_key(normalize_url(record.url)),
        "lines": list(lines),
        "numbers": list(numbers),
        "line_keys": text.line_keys(lines).tolist(),
        "images": [{"url": i.url, "position": i.position, "alt": i.alt, "caption": i.caption} for i in page.images],
        "signals": [{"name": name, "value": value} for name, value in (*header_signals(record.headers), *page.signals)],
        "warc": name,
        "offset": record.offset,
        "length": record.length,
        "digest": record.digest,
        "timestamp": record.timestamp,
    }


def finish(unit: Unit, workspace: Workspace, *, config: DocumentsConfig) -> None:
    """Candidate pages of a unit and the verdicts on them -> its documents."""
    choose = c4_texts(workspace) if config.c4 else survivors(workspace, config)
    bad_words = text.BadWords(config.bad_words)
    pages = read_rows(workspace.path(f"documents/pages/{unit.name}.parquet"))
    with workspace.parquet(f"documents/{unit.name}.parquet", DOCUMENTS) as rows:
        for number, page in enumerate(pages):
            chosen = choose(number, page)
            if isinstance(chosen, str):
                workspace.tally("pages", chosen)
                continue
            reason = judge(chosen, page, config, bad_words)
            workspace.tally("pages", reason)
            workspace.tally("lines", reason and "page_dropped", len(chosen.lines))
            if reason is None:
                rows.append(document_row(page, chosen))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The lines of a page that become its document, and where each stood on the page."""

    url: str
    lines: tuple[str, ...]
    numbers: tuple[int, ...]


Choose = Callable[[int, dict[str, Any]], Chosen | str]  # row and page -> its lines, or why it has none


def survivors(workspace: Workspace, config: DocumentsConfig) -> Choose:
    """C4's corpus-wide rules: what is left of each page when other pages kept theirs."""
    lost_pages = set(workspace.received("url_losers", URL_LOSERS)["row"].to_pylist())
    seen_pages = set(workspace.received("previous_url_losers", URL_LOSERS)["row"].to_pylist())
    lost_lines: dict[int, set[int]] = {}
    for row in workspace.received("line_losers", LINE_LOSERS).to_pylist():
        lost_lines.setdefault(row["row"], set()).add(row["line"])
    seen_lines = Counter(workspace.received("previous_line_losers", LINE_LOSERS)["row"].to_pylist())

    def choose(number: int, page: dict[str, Any]) -> Chosen | str:
        whole = text.CleanPage(lines=tuple(page["lines"]), indices=tuple(page["numbers"]), dropped={})
        if number in lost_pages:
            workspace.tally("lines", "page_dropped", len(whole.lines))
            return "previous_url" if number in seen_pages else "duplicate_url"
        lost = lost_lines.get(number, set())
        gone = [i in lost for i in range(len(whole.lines))]
        rest = text.keep_lines(whole, gone, keys=page["line_keys"], rules=config.text)
        if isinstance(rest, str):
            workspace.tally("lines", "page_dropped", len(whole.lines))
            return rest
        seen = seen_lines[number]
        elsewhere = Counter(previous_line=seen) + Counter(rest.dropped) - Counter(duplicate_elsewhere=seen)
        for reason, count in elsewhere.items():
            workspace.tally("lines", reason, count)
        return Chosen(url=page["url"], lines=rest.lines, numbers=rest.indices)

    return choose


def c4_texts(workspace: Workspace) -> Choose:
    """Released C4: exactly its documents and their text, laid over the lines of the page."""
    texts = {row["row"]: row for row in workspace.received("c4_texts", C4_TEXTS).to_pylist()}

    def choose(number: int, page: dict[str, Any]) -> Chosen | str:
        row = texts.get(number)
        if row is None:
            return "not_in_c4"
        lines, numbers = own_text(row["text"], page["lines"])
        return Chosen(url=row["url"], lines=lines, numbers=numbers)

    return choose


def judge(chosen: Chosen, page: dict[str, Any], config: DocumentsConfig, bad_words: text.BadWords) -> str | None:
    """Why a page is no document, or None; the rules that C4 applies to the text as a whole come here."""
    if not page["images"]:
        return "no_images"
    if config.c4:
        return None
    whole = "\n".join(chosen.lines)
    reason = language.reject(language.score(whole), min_english=config.min_english)
    return reason or bad_words.reject(whole)


def document_row(page: dict[str, Any], chosen: Chosen) -> dict[str, Any]:
    """A row of `documents`: sentences, and pictures placed among them."""
    whole = "\n".join(chosen.lines)
    spans = sentences.sentence_spans(whole)
    places = sentences.positions_in_sentences(
        chosen.lines, chosen.numbers, [image["position"] for image in page["images"]], spans
    )
    images = [{**image, "position": place} for image, place in zip(page["images"], places, strict=True)]
    kept = {name: page[name] for name in ("signals", "warc", "offset", "length", "digest", "timestamp")}
    return {
        "url": chosen.url,
        "sentences": [whole[start:stop] for start, stop in spans],
        "images": images,
        **kept,
    }


@dataclass
class Documents(beam.PTransform):
    """WARC files -> documents files."""

    root: str
    crawl_root: str
    fingerprint: str  # of extraction, which sees one WARC file
    corpus_fingerprint: str  # of everything behind it, which sees them all
    near_fingerprint: str  # of that, and of how near duplicates are looked for
    config: DocumentsConfig
    files: tuple[Unit, ...]
    buckets: tuple[Unit, ...]
    previous: tuple[PreviousBuild, ...] = ()

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        run = partial(extract, config=self.config, crawl_root=self.crawl_root, buckets=len(self.buckets))
        first = Step(name="extract", root=self.root, fingerprint=self.fingerprint, run=run)
        last = Step(
            name="documents",
            root=self.root,
            fingerprint=self.corpus_fingerprint,
            run=partial(finish, config=self.config),
        )
        if self.config.index is None:
            settled = pipeline | beam.Create(self.files) | Run(first) | self._settle()
        else:  # which records are read depends on the whole corpus
            place = (self.root, self.corpus_fingerprint)
            dated = replace(first, fingerprint=self.corpus_fingerprint)
            settled = pipeline | FindPages(*place, self.crawl_root, self.config, self.files, self.buckets, dated)
        documents = settled | Run(last)
        if self.config.near_text is None:
            return documents
        place, before = (self.root, self.near_fingerprint), () if self.config.c4 else self.previous
        return documents | NearText(*place, self.config.near_text, self.files, self.buckets, before)

    def _settle(self) -> beam.PTransform:
        """What decides, over the whole corpus, which text each page has."""
        place = (self.root, self.corpus_fingerprint)
        if self.config.c4:
            return JoinC4(*place, self.config.c4, self.files, self.buckets)
        return Deduplicate(*place, self.files, self.buckets, self.previous)
