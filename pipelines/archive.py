"""The pictures that the crawl itself holds: an index by host, with redirects followed across WARC files."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from urllib.parse import urljoin

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import PCollection

from filters.text import url_key
from mmc4_builder import storage, warc
from mmc4_builder.commits import Commit
from mmc4_builder.records import Source
from mmc4_builder.urls import host_of, image_extension
from mmc4_builder.workspace import Unit, Workspace, partition
from pipelines.schemas import ALIASES, ARCHIVED, REDIRECTS
from pipelines.units import Exchange, Run, Step, units

PICTURES = frozenset({"jpg", "jpeg", "png", "webp", "gif"})
MAX_HOPS = 5  # as many as a browser's patience, and the live fetcher's


def warc_path(crawl_root: str, name: str) -> str:
    """Where a WARC file lies that provenance knows by its name below the crawl's root."""
    return storage.join(crawl_root, name) if crawl_root else name


def host_key(url: str) -> int:
    """Decides which bucket a picture belongs to: all of a host lie in one, so that politeness needs no talk."""
    return url_key(host_of(url))


class Archive:
    """Index of the pictures of one WARC file, so that no second pass over it is needed."""

    def __init__(self, name: str) -> None:
        self.warc = name
        self._sources: dict[str, Source] = {}
        self._redirects: dict[str, str] = {}

    def note(self, record: warc.Record) -> bool:
        """Remember a picture, or a redirect that may lead to one; whether it was either."""
        if not (record.content_type.startswith("image/") or image_extension(record.url) in PICTURES):
            return False
        if record.status == 200:
            self._note_picture(record)
        elif 300 <= record.status < 400:
            self._redirects[record.url] = _target(record)
        return record.status == 200 or 300 <= record.status < 400

    def _note_picture(self, record: warc.Record) -> None:
        known = self._sources.get(record.url)
        if known is None or known.timestamp < record.timestamp:
            self._sources[record.url] = Source(
                warc=self.warc,
                offset=record.offset,
                length=record.length,
                digest=record.digest,
                timestamp=record.timestamp,
            )

    def pictures(self) -> pa.Table:
        """Rows for the buckets of their hosts."""
        rows = [{"key": host_key(url), "url": url, **asdict(self._sources[url])} for url in sorted(self._sources)]
        return pa.Table.from_pylist(rows, schema=ARCHIVED)

    def redirects(self) -> dict[str, pa.Table]:
        """Rows for the one unit that follows redirects; Common Crawl's page files hold none."""
        rows = [{"url": url, "target": self._redirects[url]} for url in sorted(self._redirects)]
        return {units(1)[0].name: pa.Table.from_pylist(rows, schema=REDIRECTS)} if rows else {}


def _target(record: warc.Record) -> str:
    """Where a redirect leads; nowhere is a target too, at which no picture is held."""
    try:
        return urljoin(record.url, record.header("location"))
    except ValueError:  # broken brackets
        return ""


def follow(redirects: dict[str, str], url: str) -> str | None:
    """Where a chain of redirects ends; None for one that is endless or too long."""
    for _ in range(MAX_HOPS):
        if url not in redirects:
            return url
        url = redirects[url]
    return None if url in redirects else url


def follow_redirects(unit: Unit, workspace: Workspace, *, buckets: int) -> None:
    """All redirects of the crawl -> under which other URLs a picture is asked for, to the bucket that holds it."""
    found = workspace.received("redirects", REDIRECTS).to_pylist()
    redirects = {row["url"]: row["target"] for row in found}
    rows = [
        {"key": host_key(target), "url": url, "target": target}
        for url in sorted(redirects)
        if (target := follow(redirects, url)) is not None
    ]
    workspace.leave("aliases", partition(pa.Table.from_pylist(rows, schema=ALIASES), "key", buckets))


def alias(unit: Unit, workspace: Workspace, *, buckets: int) -> None:
    """One bucket of hosts -> its pictures under their other URLs, to the buckets of those."""
    held = newest(workspace.received("archive", ARCHIVED))
    rows = [
        {**held[row["target"]], "key": host_key(row["url"]), "url": row["url"]}
        for row in workspace.received("aliases", ALIASES).to_pylist()
        if row["target"] in held
    ]
    workspace.leave("aliased", partition(pa.Table.from_pylist(rows, schema=ARCHIVED), "key", buckets))


def newest(captures: pa.Table) -> dict[str, dict[str, Any]]:
    """url -> its newest capture; of equally old ones the first in the crawl."""
    rows = sorted(captures.to_pylist(), key=lambda r: (r["warc"], r["offset"]), reverse=True)
    return {row["url"]: row for row in sorted(rows, key=lambda r: r["timestamp"])}


@dataclass
class FollowRedirects(beam.PTransform):
    """Commits of extraction -> commits that hold its pictures, and the same ones under the URLs that lead there."""

    root: str
    fingerprint: str
    buckets: tuple[Unit, ...]

    def expand(self, extracted: PCollection[Commit]) -> PCollection[Commit]:
        step = partial(Step, root=self.root, fingerprint=self.fingerprint)
        count = len(self.buckets)
        aliases = (
            extracted
            | Exchange(("redirects",), units(1))
            | Run(step(name="redirects", run=partial(follow_redirects, buckets=count)))
        )
        aliased = (
            ((extracted, aliases) | beam.Flatten())
            | Exchange(("archive", "aliases"), self.buckets)
            | Run(step(name="aliases", run=partial(alias, buckets=count)))
        )
        return (extracted, aliased) | "Both" >> beam.Flatten()
