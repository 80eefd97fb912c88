"""The audit of opt-outs added up for the report: counts by statement and by host, in bounded memory."""

import re
from collections import Counter
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from mmc4_builder import report, storage

STATEMENT = ["name", "value", "decision", "reason", "subject"]
HOST = ["host", "decision", "reason", "subject"]
READERS = 8  # files looked into side by side: on an object store each is a request
REMEMBERED = 50_000  # statements, and hosts; a large crawl has millions of hosts
MAX_VALUE = 80  # characters
# A path, an address or a date tells one site from another, and this table is not about sites.
_PARTICULAR = re.compile(r"\S*/\S*|\b\d{2,}\S*")

Key = TypeVar("Key", bound=Hashable)


class Largest(Generic[Key]):
    """Counts by key and cell. Of too many keys the smallest are forgotten, and `lost` tells what that may cost.

    A key that is forgotten at a cut had at most as many as the cut's largest, so that no count is further off
    than the sum of those.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._cells: dict[Key, Counter[tuple[str, str]]] = {}
        self.lost = 0

    def __len__(self) -> int:
        return len(self._cells)

    def add(self, key: Key, cell: tuple[str, str], count: int) -> None:
        self._cells.setdefault(key, Counter())[cell] += count
        if len(self._cells) > 2 * self._most:
            ordered = self.ordered()
            self.lost += ordered[self._most][1].total()
            self._cells = dict(ordered[: self._most])

    def ordered(self) -> list[tuple[Key, Counter[tuple[str, str]]]]:
        """The largest first; equal ones by their key."""
        return sorted(self._cells.items(), key=lambda item: (-item[1].total(), item[0]))


def count(paths: list[str]) -> report.OptOuts:
    """All rows of these files of optout.parquet, one file after another."""
    signals: Largest[tuple[str, ...]] = Largest()
    hosts: Largest[str] = Largest()
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(paths), READERS):  # or the files of a whole crawl would wait in memory
            for statements, refusals in pool.map(_count_file, paths[start : start + READERS]):
                for (*statement, reason, subject), times in statements.items():
                    signals.add((*statement, reason), (subject, reason), times)
                for (host, reason, subject), times in refusals.items():
                    hosts.add(host, (subject, reason), times)
    return report.OptOuts(
        signals=tuple(_signals(signals)),
        signals_in_all=len(signals),
        signals_lost=signals.lost,
        hosts=tuple(_hosts(hosts)),
        hosts_in_all=len(hosts),
        hosts_lost=hosts.lost,
    )


def normalised(name: str, value: str) -> str:
    """A statement's value without what is particular to one site: paths, addresses, dates, entries of a list."""
    if name.startswith("list:"):
        return ""
    return " ".join(_PARTICULAR.sub("\u2026", value[: 4 * MAX_VALUE].lower()).split())[:MAX_VALUE]


def _count_file(path: str) -> tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]]]:
    """Rows by (name, value, decision, reason, subject), and refusals by (host, reason, subject)."""
    statements: Counter[tuple[str, ...]] = Counter()
    refusals: Counter[tuple[str, ...]] = Counter()
    with storage.open_read(path) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(columns=sorted({*STATEMENT, *HOST})):
            for (name, value, decision, reason, subject), times in _grouped(batch, STATEMENT):
                statements[name, normalised(name, value), decision, reason, subject] += times
            for (host, decision, reason, subject), times in _grouped(batch, HOST):
                if decision == "refused":
                    refusals[host, reason, subject] += times
    return statements, refusals


def _grouped(batch: pa.RecordBatch, columns: list[str]) -> Iterator[tuple[list[str], int]]:
    """Distinct values of these columns, null as "", and how many rows have them."""
    grouped = pa.Table.from_batches([batch]).group_by(columns).aggregate([([], "count_all")])
    for *cells, times in zip(*(grouped[name].to_pylist() for name in (*columns, "count_all")), strict=True):
        yield [cell or "" for cell in cells], times


def _signals(found: Largest[tuple[str, ...]]) -> Iterator[report.Signal]:
    for (name, value, decision, reason), cells in found.ordered()[: report.MAX_OPTOUT_ROWS]:
        pages, images = map(partial(_of, cells), ("page", "image"))
        yield report.Signal(name=name, value=value, decision=decision, reason=reason, pages=pages, images=images)


def _hosts(found: Largest[str]) -> Iterator[report.RefusingHost]:
    for host, cells in found.ordered()[: report.MAX_OPTOUT_ROWS]:
        reasons: Counter[str] = Counter()
        for (_, reason), times in sorted(cells.items()):
            reasons[reason] += times
        pages, images = map(partial(_of, cells), ("page", "image"))
        ordered = tuple(reason for reason, _ in sorted(reasons.items(), key=lambda r: (-r[1], r[0])))
        yield report.RefusingHost(host=host, reasons=ordered, pages=pages, images=images)


def _of(cells: Counter[tuple[str, str]], subject: str) -> int:
    return sum(times for (kind, _), times in cells.items() if kind == subject)
