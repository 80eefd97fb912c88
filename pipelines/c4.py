"""Released C4 instead of its rules: find, for each of its documents, the page of the crawl that it was made from."""

import gzip
import json
import math
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from typing import IO, cast

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import PCollection

from filters.text import url_key
from mmc4_builder import transport
from mmc4_builder.commits import Commit
from mmc4_builder.urls import normalize_url
from mmc4_builder.workspace import Unit, Workspace, partition
from pipelines.schemas import C4_CLAIMS, C4_TEXTS, URL_CLAIMS
from pipelines.units import Exchange, Run, Step

TOGETHER = 10_000  # documents of a file that are Python objects at a time


def read_c4(unit: Unit, workspace: Workspace, *, buckets: int) -> None:
    """One `c4-train.*.json.gz` -> its documents, to the buckets of their URLs."""
    (path,) = unit.inputs
    documents = _documents(path, workspace)
    batches = iter(lambda: list(islice(documents, TOGETHER)), [])  # a file as Python objects would be gigabytes
    tables = [pa.Table.from_pylist(batch, schema=C4_CLAIMS) for batch in batches]
    table = pa.concat_tables([C4_CLAIMS.empty_table(), *tables])
    workspace.leave("c4", partition(table, "key", buckets))


def _documents(path: str, workspace: Workspace) -> Iterator[dict[str, object]]:
    with transport.open_stream(path) as stream:
        for number, line in enumerate(_lines(stream, path)):
            try:
                yield _claim(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                workspace.bury("c4", "not_a_c4_document", file=path, line=number, detail=repr(error)[:200])


def _lines(stream: transport.ByteStream, path: str) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=cast(IO[bytes], stream)) as lines:
            yield from lines
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise transport.TransportError(f"{path} is damaged ({error}); fetch it again") from error


def _claim(row: dict[str, str]) -> dict[str, object]:
    """The row for the bucket; raises where the document is none, such as text that UTF-8 cannot hold."""
    url, timestamp, text = row["url"], row["timestamp"], row["text"]
    url.encode(), text.encode(), _instant(timestamp)
    return {"key": url_key(normalize_url(url)), "timestamp": timestamp, "url": url, "text": text}


def join_c4(unit: Unit, workspace: Workspace) -> None:
    """Bucket of URLs -> each C4 document's text, to the capture of its URL that is nearest in time."""
    pages = workspace.received("urls", URL_CLAIMS)
    documents = workspace.received("c4", C4_CLAIMS)
    chosen = nearest(pages["key"].to_numpy(), _seconds(pages), documents["key"].to_numpy(), _seconds(documents))
    taken: dict[str, list[dict[str, object]]] = {}
    units, rows = pages["unit"].to_pylist(), pages["row"].to_pylist()
    seen: set[int] = set()
    for document, page in zip(documents.to_pylist(), chosen, strict=True):
        reason = "page_not_in_crawl" if page < 0 else "page_taken" if page in seen else None
        workspace.tally("c4", reason)
        if reason is None:
            seen.add(page)
            taken.setdefault(units[page], []).append(
                {"row": rows[page], "url": document["url"], "text": document["text"]}
            )
    tables = {u: pa.Table.from_pylist(found, schema=C4_TEXTS) for u, found in taken.items()}
    workspace.leave("c4_texts", tables)


def _seconds(table: pa.Table) -> np.ndarray:
    return np.asarray([_time(timestamp) for timestamp in table["timestamp"].to_pylist()], dtype=np.float64)


def _time(timestamp: str) -> float:
    """Of a capture; one that no calendar knows, such as 31 February, is far from every other."""
    try:
        return _instant(timestamp)
    except ValueError:
        return -math.inf


def _instant(timestamp: str) -> float:
    """Seconds since 1970; of `2019-04-25T12:57:54.123Z` the fraction, which may have nine digits, is left out."""
    return datetime.fromisoformat(timestamp[:19]).replace(tzinfo=timezone.utc).timestamp()


def nearest(page_keys: np.ndarray, page_times: np.ndarray, keys: np.ndarray, times: np.ndarray) -> list[int]:
    """For each wanted (key, time), the row of the page of that key nearest in time, or -1.

    Of two equally near ones the earlier, of equally old ones the first row.
    """
    by_key: dict[int, list[int]] = {}
    for row, key in enumerate(page_keys.tolist()):
        by_key.setdefault(key, []).append(row)
    return [
        min(
            by_key.get(key, [-1]),
            key=lambda row: (abs(page_times[row] - time), page_times[row], row) if row >= 0 else (0.0, 0.0, 0),
        )
        for key, time in zip(keys.tolist(), times.tolist(), strict=True)
    ]


def own_text(text: str, page_lines: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The lines of a C4 text, and for each its place among the lines of the page that it was made from.

    C4 cuts lines out and never moves them, so the search goes forward only. A line that is not found (the page's
    text was taken out by other rules) counts as standing where the last one was found.
    """
    places: dict[str, list[int]] = {}
    for number, line in enumerate(page_lines):
        places.setdefault(_squeeze(line), []).append(number)
    lines, numbers, at = [], [], 0
    for line in text.split("\n"):
        found = places.get(_squeeze(line), [])
        next_one = bisect_left(found, at)
        at = found[next_one] if next_one < len(found) else at
        lines.append(line)
        numbers.append(at)
    return tuple(lines), tuple(numbers)


def _squeeze(line: str) -> str:
    return "".join(line.split()).lower()


@dataclass
class JoinC4(beam.PTransform):
    """Commits of extraction -> documents files with the C4 text of their pages."""

    root: str
    fingerprint: str
    c4_files: tuple[str, ...]
    files: tuple[Unit, ...]
    buckets: tuple[Unit, ...]

    def expand(self, extracted: PCollection[Commit]) -> PCollection[Unit]:
        step = partial(Step, root=self.root, fingerprint=self.fingerprint)
        sources = [Unit(name=f"{i:05d}", inputs=(path,)) for i, path in enumerate(self.c4_files)]
        released = (
            extracted.pipeline
            | "C4 files" >> beam.Create(sources)
            | Run(step(name="read_c4", run=partial(read_c4, buckets=len(self.buckets))))
        )
        return (
            (extracted, released)
            | beam.Flatten()
            | Exchange(("urls", "c4"), self.buckets)
            | Run(step(name="join_c4", run=join_c4))
            | Exchange(("c4_texts",), self.files)
        )
