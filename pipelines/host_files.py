"""What hosts say in robots.txt and tdmrep.json: found in the crawl, asked for its URLs, and kept for the audit."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urljoin, urlsplit

import pyarrow as pa

from mmc4_builder import transport, warc
from mmc4_builder.host_files import MAX_BODY, HostFile, HostRules
from mmc4_builder.signals import Statement
from mmc4_builder.urls import host_of
from mmc4_builder.workspace import Workspace
from pipelines.archive import host_key, warc_path
from pipelines.schemas import HOST_FILES
from pipelines.spool import Place, Spool

ROBOTS = "/robots.txt"
TDMREP = "/.well-known/tdmrep.json"
MAX_REDIRECTS = 5  # of robots.txt (RFC 9309 §2.3.1.2)
PARSED = 256  # hosts whose rules are held parsed at a time
MAX_HELD = 256 << 20  # bytes of one WARC file's host files; Common Crawl's are some MB
_PORTS = {"http": 80, "https": 443}

Row = dict[str, Any]


def origin_of(url: str) -> str:
    """Scheme, host and port, for which a robots.txt holds (RFC 9309 §2.3); "" for what is no URL."""
    try:
        parts = urlsplit(url.strip())
        scheme, port = parts.scheme.lower(), parts.port
    except ValueError:
        return ""
    host = host_of(url)
    if not host or scheme not in _PORTS:
        return ""
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}" + ("" if port in (None, _PORTS[scheme]) else f":{port}")


def as_host_file(url: str) -> str | None:
    """The plain form of a URL of robots.txt or tdmrep.json; None for every other."""
    if not url.endswith((ROBOTS, TDMREP)):
        return None
    origin = origin_of(url)
    path = urlsplit(url).path if origin else ""
    return origin + path if path in (ROBOTS, TDMREP) and "?" not in url and "#" not in url else None


class HostFileIndex:
    """The host files of one WARC file, in memory: the newest capture of each."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._targets: dict[str, str] = {}
        self._room = MAX_HELD

    def note(self, record: warc.Record, name: str) -> bool:
        """Remember a robots.txt or tdmrep.json, whatever its status. False where there was no room for its body.

        Such a file counts as one that could not be reached: what cannot be read must not be taken for consent.
        """
        url = as_host_file(record.url) or record.url
        known = self._rows.get(url)
        if known is not None and known["seen"] >= record.timestamp:
            return True
        row = _archived(url, record, name)
        size = len(row["body"] or b"")
        fits = size <= self._room
        self._room -= size if fits else 0
        self._rows[url] = row if fits else {**row, "body": None, "reason": "too_many_bytes"}
        self._targets.pop(url, None)
        if 300 <= record.status < 400:
            self._targets[url] = _target(record)
        return fits

    def table(self) -> pa.Table:
        """Rows for the buckets of their hosts. A redirect within the file is an answer of where it leads."""
        rows = [{**self._rows[self._follow(url)], "key": host_key(url), "url": url} for url in sorted(self._rows)]
        return pa.Table.from_pylist(rows, schema=HOST_FILES)

    def _follow(self, url: str) -> str:
        at = url
        for _ in range(MAX_REDIRECTS):
            target = self._targets.get(at, "")
            if target not in self._rows:
                return at
            at = target
        return url if at in self._targets else at


def _archived(url: str, record: warc.Record, name: str) -> Row:
    return {
        "url": url,
        "origin": "archive",
        "status": record.status,
        "reason": None,
        "body": record.payload[: MAX_BODY + 1] if 200 <= record.status < 300 else None,
        "seen": record.timestamp,
        "warc": name,
        "warc_offset": record.offset,
    }


def _target(record: warc.Record) -> str:
    try:
        return as_host_file(urljoin(record.url, record.header("location"))) or ""
    except ValueError:  # broken brackets
        return ""


def note_host_file(record: warc.Record, name: str, workspace: Workspace, host_files: HostFileIndex) -> None:
    """Count a robots.txt or tdmrep.json, and remember what it says."""
    if host_files.note(record, name):
        workspace.tally("host_files", None)
    else:
        workspace.bury("host_files", "too_many_bytes", warc=name, offset=record.offset, detail=record.url[:200])


def read_robots(
    name: str, crawl_root: str, workspace: Workspace, limits: warc.WarcLimits, host_files: HostFileIndex
) -> None:
    """What hosts said when the crawl asked them for robots.txt: Common Crawl keeps it in a file beside each WARC file.

    A file that is not there is counted and told: its hosts then say nothing.
    """
    sibling = "/robotstxt/".join(name.rsplit("/warc/", 1))
    path = warc_path(crawl_root, sibling)
    if sibling == name:
        workspace.bury("robots_warcs", "no_such_subset", warc=name)
        return
    try:
        with transport.open_stream(path) as stream:
            for record in warc.read_records(stream, path, limits=limits):
                if isinstance(record, warc.BadRecord):
                    workspace.bury(
                        "host_files", record.reason, warc=sibling, offset=record.offset, detail=record.detail
                    )
                elif as_host_file(record.url):
                    note_host_file(record, sibling, workspace, host_files)
            workspace.counts["crawl.bytes"] += stream.tell()
    except transport.NotFound as error:
        workspace.bury("robots_warcs", "not_found", warc=sibling, detail=str(error)[:200])
        return
    workspace.tally("robots_warcs", None)


class CrawlTime:
    """What the hosts of one bucket said when they were crawled, of any of their URLs."""

    def __init__(self, found: pa.Table, agents: Sequence[str]) -> None:
        self._found = found
        self._agents = tuple(agents)
        self._newest = _newest(found)
        self._consulted: set[str] = set()
        self._rules = lru_cache(PARSED)(self._parse)

    def statements(self, url: str) -> tuple[Statement, ...]:
        """All that the archived files of its origin say of a URL; nothing where none was archived."""
        rules = self._rules(origin_of(url))
        return () if rules is None else rules.statements(url, self._agents)

    def consulted(self) -> Iterator[Row]:
        """Rows of the files that were asked, in order of their URLs."""
        for url in sorted(self._consulted):
            yield self._row(url)

    def _parse(self, origin: str) -> HostRules | None:
        files = [self._file(origin + path) for path in (ROBOTS, TDMREP)]
        return HostRules.of(*files) if any(files) else None

    def _file(self, url: str) -> HostFile | None:
        if url not in self._newest:
            return None
        self._consulted.add(url)
        row = self._row(url)
        body = row["body"] or b""
        return HostFile(url=url, status=row["status"], reason=row["reason"], body=body, seen=row["seen"])

    def _row(self, url: str) -> Row:
        row: Row = self._found.slice(self._newest[url], 1).to_pylist()[0]
        return row


def _newest(found: pa.Table) -> dict[str, int]:
    """url -> row of its newest capture; of equally old ones the first in the crawl. Bodies stay where they are."""
    columns = (found[name].to_pylist() for name in ("seen", "url", "warc", "warc_offset"))
    rows = sorted(enumerate(zip(*columns, strict=True)), key=lambda r: r[1][2:], reverse=True)
    return {url: number for number, (_, url, *_) in sorted(rows, key=lambda r: r[1][0])}


class LiveFiles:
    """What the fetcher was told by hosts, put aside until the bucket is done: together they may be large."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._kept: list[tuple[HostFile, Place]] = []

    def keep(self, file: HostFile) -> None:
        """Take one answer."""
        body = self._spool.put(file.body)
        bare = HostFile(url=file.url, status=file.status, reason=file.reason, body=b"", seen=file.seen)
        self._kept.append((bare, body))

    def rows(self) -> Iterator[Row]:
        """A row for each answer, in order of URL and time."""
        for file, place in sorted(self._kept, key=lambda kept: (kept[0].url, kept[0].seen)):
            yield {
                "key": host_key(file.url),
                "url": file.url,
                "origin": "live",
                "status": file.status,
                "reason": file.reason,
                "body": self._spool.get(place) if file.reason is None else None,
                "seen": file.seen,
            }


def write(rows: Iterable[Row], out: Any) -> None:
    """Rows into a Parquet file, in groups that stay small whatever the bodies are."""
    for row in rows:
        out.append(row, weight=len(row["body"] or b""))
