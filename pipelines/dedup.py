"""Corpus-wide duplicates of C4 (one page a URL, one page a line): hashes go to buckets, verdicts come back."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from apache_beam.pvalue import PCollection

from mmc4_builder.commits import Commit
from mmc4_builder.workspace import Unit, Workspace, partition, read_rows
from pipelines.config import PreviousBuild
from pipelines.previous_documents import claim_before, document_units, known_lines, known_pages
from pipelines.schemas import LINE_CLAIMS, LINE_LOSERS, PREVIOUS_LINES, PREVIOUS_URLS, URL_CLAIMS, URL_LOSERS
from pipelines.units import Exchange, Run, Step

Mask = npt.NDArray[np.bool_]
VERDICTS = ("url_losers", "line_losers", "previous_url_losers", "previous_line_losers")


def url_losers(claims: pa.Table) -> Mask:
    """Captures of which another is kept: the newest of a URL stays, of equally old ones the first in the crawl."""
    return _all_but_first(claims, -_dense(claims["timestamp"]))


def line_losers(claims: pa.Table) -> Mask:
    """Lines that another page keeps: of equal lines the one whose URL has the smallest hash stays (C4)."""
    return _all_but_first(claims, claims["owner"].to_numpy(), tie="line")


def _dense(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Rank of each value among the distinct ones; ISO timestamps sort as text."""
    _, ranks = np.unique(column.to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    return ranks.astype(np.int64)


def _all_but_first(claims: pa.Table, preference: npt.NDArray[np.generic], tie: str | None = None) -> Mask:
    """Rows that are not the first of their key, in order of preference, then of place in the crawl."""
    keys = claims["key"].to_numpy()
    place = [claims[tie].to_numpy()] if tie else []
    order = np.lexsort((*place, claims["row"].to_numpy(), _dense(claims["unit"]), preference, keys))
    sorted_keys = keys[order]
    later = np.zeros(len(keys), dtype=bool)
    later[order[1:]] = sorted_keys[1:] == sorted_keys[:-1]
    return later


def judge_urls(unit: Unit, workspace: Workspace, *, adds: bool = False) -> None:
    """Bucket of URLs -> for each documents file, which of its pages lose; where the build adds to others, to whom."""
    claims = workspace.received("urls", URL_CLAIMS)
    lost = url_losers(claims)
    if adds:
        known = ~lost & known_pages(claims, workspace.received("previous_urls", PREVIOUS_URLS))
        _send_back(workspace, "previous_url_losers", claims.filter(known), URL_LOSERS)
        lost |= known
    _send_back(workspace, "url_losers", claims.filter(lost), URL_LOSERS)


def judge_lines(unit: Unit, workspace: Workspace, *, adds: bool = False) -> None:
    """Bucket of line hashes -> for each documents file, which of its lines lose; likewise."""
    claims = workspace.received("lines", LINE_CLAIMS)
    lost = line_losers(claims)
    if adds:
        known, taken = known_lines(claims, workspace.received("previous_lines", PREVIOUS_LINES))
        _send_back(workspace, "previous_line_losers", claims.filter(taken), LINE_LOSERS)
        lost = np.where(known, taken, lost)
    _send_back(workspace, "line_losers", claims.filter(lost), LINE_LOSERS)


def _send_back(workspace: Workspace, exchange: str, losers: pa.Table, schema: pa.Schema) -> None:
    units = losers["unit"].to_numpy(zero_copy_only=False)
    rows = {unit: losers.filter(units == unit).select(schema.names) for unit in sorted(set(units))}
    workspace.leave(exchange, rows)


def claim_lines(unit: Unit, workspace: Workspace, *, buckets: int) -> None:
    """Documents file -> the lines of the pages that survived, to the buckets of their hashes."""
    lost = set(workspace.received("url_losers", URL_LOSERS)["row"].to_pylist())
    keys: list[int] = []
    owners: list[int] = []
    rows: list[int] = []
    lines: list[int] = []
    path = workspace.path(f"documents/pages/{unit.name}.parquet")
    for row, page in enumerate(read_rows(path, ["url_key", "line_keys"])):
        if row not in lost:
            first = {key: line for line, key in reversed(list(enumerate(page["line_keys"])))}
            keys += first
            lines += first.values()
            owners += [page["url_key"]] * len(first)
            rows += [row] * len(first)
    claims = pa.table([keys, owners, [unit.name] * len(keys), rows, lines], schema=LINE_CLAIMS)
    workspace.leave("lines", partition(claims, "key", buckets))


@dataclass
class Deduplicate(beam.PTransform):
    """Commits of extraction -> documents files with the verdicts on their pages and lines."""

    root: str
    fingerprint: str
    files: tuple[Unit, ...]
    buckets: tuple[Unit, ...]
    previous: tuple[PreviousBuild, ...] = ()  # builds that came first, and whose pages and lines stay theirs

    def expand(self, extracted: PCollection[Commit]) -> PCollection[Unit]:
        count, adds = len(self.buckets), bool(self.previous)
        before = (self._before(extracted.pipeline),) if adds else ()
        urls = (
            (extracted, *before)
            | "All pages" >> beam.Flatten()
            | Exchange(("urls", "previous_urls"), self.buckets)
            | Run(self._step("judge_urls", partial(judge_urls, adds=adds)))
        )
        claims = (
            urls
            | Exchange(("url_losers",), self.files)
            | Run(self._step("claim_lines", partial(claim_lines, buckets=count)))
        )
        lines = (
            (claims, *before)
            | "All lines" >> beam.Flatten()
            | Exchange(("lines", "previous_lines"), self.buckets)
            | Run(self._step("judge_lines", partial(judge_lines, adds=adds)))
        )
        return (urls, lines) | beam.Flatten() | Exchange(VERDICTS, self.files)

    def _before(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        """What earlier builds claimed, once for pages and lines."""
        run = partial(claim_before, builds=self.previous, buckets=len(self.buckets))
        files = pipeline | "Earlier files" >> beam.Create(document_units(self.previous))
        claimed: PCollection[Commit] = files | Run(self._step("previous_documents", run))
        return claimed

    def _step(self, name: str, run: Callable[[Unit, Workspace], None]) -> Step:
        return Step(name=name, root=self.root, fingerprint=self.fingerprint, run=run)
