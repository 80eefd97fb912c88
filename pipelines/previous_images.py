"""What earlier builds know of pictures, for a build that adds to them: rows by address, and how often each was shown.

How often pictures are shown is counted over all builds. Earlier ones are not visited again: what becomes too frequent
only by what B shows, A has kept. Of pictures that the crawls themselves hold (`--images archive`), A shows those of
A's crawl alone, B those of both; an archived redirect of one crawl is not followed into another.
"""

import json
from collections import Counter
from collections.abc import Container, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmc4_builder import storage
from mmc4_builder.workspace import Unit, Workspace, partition, read_rows
from pipelines.previous_documents import Builds, place_of
from pipelines.schemas import IMAGES, TOTALS
from pipelines.spool import Place, Spool

COLUMNS = [name for name in IMAGES.names if name not in ("units", "documents")]

Row = dict[str, Any]


def bucket_units(builds: Builds) -> tuple[Unit, ...]:
    """A unit for each bucket of pictures of the earlier builds: `0-00012`."""
    return tuple(Unit(name=f"{n}-{bucket:05d}") for n, build in enumerate(builds) for bucket in range(build.buckets))


def count_before(unit: Unit, workspace: Workspace, *, builds: Builds, buckets: int) -> None:
    """One bucket of an earlier build -> how often its pictures were shown there, to the buckets of their hashes."""
    _, root, name = place_of(unit, builds)
    shown: Counter[int] = Counter()
    for row in read_rows(storage.join(root, f"images/{name}.parquet"), ["sha256", "phash", "documents"]):
        if row["sha256"]:
            shown[row["phash"]] += row["documents"]
    table = pa.table([list(shown), list(shown.values())], schema=TOTALS)
    workspace.leave("previous_occurrences", partition(table, "key", buckets))


class Before:
    """Pictures that earlier builds have, of the addresses that one bucket wants. In memory is only where rows lie."""

    def __init__(self, builds: Builds, spool: Spool) -> None:
        self._builds = builds
        self._spool = spool
        self._places: dict[str, list[tuple[int, Place]]] = {}

    def __contains__(self, url: object) -> bool:
        return url in self._places

    def put(self, build: int, row: Row) -> None:
        """Take a row of an earlier build."""
        place = self._spool.put(json.dumps(row).encode())
        self._places.setdefault(row["url"], []).append((build, place))

    def rows(self, url: str) -> Iterator[tuple[str, Row]]:
        """Root and row of each earlier build that has the picture, the first build first."""
        for build, place in self._places[url]:
            yield self._builds[build].root, json.loads(self._spool.get(place))


def look_up(unit: Unit, builds: Builds, wanted: Container[str], buckets: int, spool: Spool) -> Before:
    """The rows of earlier builds for the URLs of one bucket of `buckets`."""
    found = Before(builds, spool)
    for number, build in enumerate(builds):
        for bucket in meeting(int(unit.name), buckets, build.buckets):
            for row in stored_rows(storage.join(build.root, f"images/{bucket:05d}.parquet"), wanted):
                found.put(number, row)
    return found


def meeting(bucket: int, ours: int, theirs: int) -> range:
    """Buckets of another build that may hold keys of this one. Both counts are powers of two."""
    return range(bucket % theirs, theirs, min(ours, theirs))


def stored_rows(path: str, wanted: Container[str]) -> Iterator[Row]:
    """Rows with a picture, of the wanted URLs; a row group in memory at a time."""
    with storage.open_read(path) as stream:
        file = pq.ParquetFile(stream)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=COLUMNS)
            stored = table.filter(pc.is_valid(table["sha256"]))
            yield from stored.filter([url in wanted for url in stored["url"].to_pylist()]).to_pylist()
