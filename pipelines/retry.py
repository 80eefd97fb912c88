"""`--retry-failed`: ask again for what failed in a way that may pass, and for nothing else, in a finished stage.

Nothing is half visible at any time. First the network: each bucket leaves what changed in files of its own,
under a record of the step `retry`. Then the bucket's rows are merged and its record is replaced, which can be
done again from the start as often as it is interrupted. Last, the records of what depends on it are removed, so
that the next run of the stages does that work anew; and only then the records of `retry`.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from mmc4_builder import commits, storage
from mmc4_builder.commits import Commit, Output, Piece
from mmc4_builder.fetch_rules import may_pass
from mmc4_builder.workspace import Unit, Workspace, read_rows
from pipelines import host_files
from pipelines.config import ImagesConfig
from pipelines.fetching import KeepOut, Sources
from pipelines.host_files import CrawlTime, LiveFiles
from pipelines.images import collect, leave_occurrences, note_shown
from pipelines.picture_tar import Row, Waiting, open_tar, placed
from pipelines.plan import Plan, Stage, Work
from pipelines.schemas import HOST_FILES, IMAGES
from pipelines.spool import Spool
from pipelines.units import Run, Step, unit_fingerprint

STEP = "retry"
PLACE = ("store", "store_offset", "store_length")
DROPPED = "urls.dropped."
# What reads all buckets, or all hashes, is done anew as a whole; the rest where it reads what changed.
OF_EVERYTHING = ("occurrences", "frequent", "heads", "interleave", "shards")
OF_BUCKETS = ("embed", "faces")
OF_FILES = ("scores",)


def may_succeed(counts: Mapping[str, int]) -> int:
    """URLs of a bucket that failed in a way that may pass, by its commit."""
    return sum(n for name, n in counts.items() if name.startswith(DROPPED) and may_pass(name[len(DROPPED) :]))


def units_to_retry(stored: Iterable[Commit]) -> tuple[Unit, ...]:
    """A unit for each bucket with such URLs. Its input is which retry of the bucket this is, from 1 on."""
    return tuple(
        Unit(name=commit.unit, inputs=(str(1 + _rounds(commit)),)) for commit in stored if may_succeed(commit.counts)
    )


def _rounds(commit: Commit) -> int:
    return sum(output.path.startswith(f"retries/{commit.unit}.") for output in commit.outputs)


def stage(plan: Plan) -> Stage | None:
    """The retry of a finished images stage, to be run like any other; None where there is nothing to ask again."""
    if plan.build.images.source not in ("live", "both"):
        return None
    (images,) = (work for work in plan.stage("images").work if work.step == "images")
    units = units_to_retry(images.committed(plan.root))
    if not units:
        return None
    transform = Retry(plan.root, images.fingerprint, plan.build.images, units, len(images.units))
    return Stage(name=STEP, transform=transform, work=(Work(STEP, images.fingerprint, units),))


def retry_bucket(unit: Unit, workspace: Workspace, *, config: ImagesConfig) -> None:
    """Ask again for what failed in one bucket of hosts; leave the rows that changed, and their new pictures."""
    name, number = unit.name, unit.inputs[0]
    failed, known = _look_back(workspace, name)
    with Spool() as spool:
        live = LiveFiles(spool)
        sources = Sources(
            config=config,
            keep_out=KeepOut.of(workspace.root, config),
            at_rest={},  # where the crawl had a copy, it was taken at the first time
            crawl_time=CrawlTime(HOST_FILES.empty_table(), ()),
            keep_host_file=live.keep,
        )
        waiting = collect(list(failed), sources, workspace, spool)
        with workspace.parquet(f"retries/{name}.{number}.parquet", IMAGES) as rows:
            for row, weight in _settled(workspace, f"images/{name}.retry{number}.tar", failed, waiting, known):
                workspace.tally("retries", row["reason"])
                if not _is_same(row, failed[row["url"]]):
                    rows.append({**row, **_mentioned(failed[row["url"]])}, weight=weight)
        with workspace.parquet(f"retries/hosts/{name}.{number}.parquet", HOST_FILES) as hosts:
            host_files.write(live.rows(), hosts)


def _look_back(workspace: Workspace, name: str) -> tuple[dict[str, Row], dict[str, Row]]:
    """url -> row of what may pass, in order; sha256 -> place of each picture that is stored already."""
    failed: dict[str, Row] = {}
    known: dict[str, Row] = {}
    for row in read_rows(workspace.path(f"images/{name}.parquet")):
        if row["sha256"]:
            known[row["sha256"]] = {column: row[column] for column in PLACE}
        elif row["reason"] and may_pass(row["reason"]):
            failed[row["url"]] = row
    return failed, known


def _settled(
    workspace: Workspace, tar: str, urls: Iterable[str], waiting: Waiting, known: Mapping[str, Row]
) -> Iterator[tuple[Row, int]]:
    """Rows with places. A further tar is begun only for pictures that no tar of the bucket holds."""
    if waiting.pictures().difference(known):
        with open_tar(workspace, tar, known) as store:
            yield from placed(urls, waiting, store)
        return
    for url in urls:
        row, weight = waiting.row(url)
        yield {**row, **known.get(row.get("sha256", ""), {})}, weight


def _is_same(row: Row, before: Row) -> bool:
    return row["reason"] == before["reason"] and _said(row) == _said(before)


def _said(row: Row) -> list[tuple[str, str]]:
    return [(said["name"], said["value"]) for said in row["statements"] or ()]


def _mentioned(before: Row) -> Row:
    return {name: before[name] for name in ("units", "documents")}


def merge(retried: Commit, *, root: str, buckets: int) -> Commit:
    """Put what a retry found in place: the bucket's rows, its host files, its occurrences, and then its record.

    Harmless to repeat: a retry that the record knows is not merged again.
    """
    name = retried.unit
    before = commits.from_json(storage.read(commits.path_of(root, "images", name)))
    if {output.path for output in retried.outputs} <= {output.path for output in before.outputs}:
        return before
    rows_path, hosts_path = f"images/{name}.parquet", f"images/hosts/{name}.parquet"
    written = {rows_path, hosts_path, f"exchange/occurrences/{name}.arrows"}
    workspace = Workspace(
        root,
        "images",
        Unit(name=name),
        Counter({n: c for n, c in before.counts.items() if not n.startswith("urls.")}),
        [*(output for output in before.outputs if output.path not in written), *retried.outputs],
        _without(before.pieces, "occurrences"),
    )
    workspace.counts.update({n: c for n, c in retried.counts.items() if not n.startswith("retries.")})
    shown: Counter[int] = Counter()
    changed = {row["url"]: row for row in read_rows(workspace.path(_one(retried.outputs, "retries/")))}
    with workspace.parquet(rows_path, IMAGES) as rows:
        for old in read_rows(workspace.path(rows_path)):
            row = changed.get(old["url"], old)
            workspace.tally("urls", row["reason"])
            note_shown(shown, row)
            rows.append(row, weight=_weight(row))
    with workspace.parquet(hosts_path, HOST_FILES) as hosts:
        paths = (hosts_path, _one(retried.outputs, "retries/hosts/"))
        host_files.write(_united(*(read_rows(workspace.path(path)) for path in paths)), hosts)
    leave_occurrences(workspace, shown, buckets)
    return workspace.commit(before.fingerprint)


def _one(outputs: Iterable[Output], folder: str) -> str:
    """The output that lies directly in a folder."""
    (path,) = (output.path for output in outputs if output.path.rpartition("/")[0] == folder.rstrip("/"))
    return path


def _without(pieces: Mapping[str, tuple[Piece, ...]], exchange: str) -> dict[str, list[Piece]]:
    kept: dict[str, list[Piece]] = defaultdict(list)
    for destination, left in pieces.items():
        if others := [piece for piece in left if piece.exchange != exchange]:
            kept[destination] = others
    return kept


def _weight(row: Row) -> int:
    lists = (row["headers"] or (), row["statements"] or ())
    return sum(len(value) for entries in lists for entry in entries for value in entry.values() if value)


def _united(*files: Iterator[Row]) -> Iterator[Row]:
    """Rows of host files in one order, each answer once."""
    last: tuple[Any, ...] = ()
    for row in heapq.merge(*files, key=_order):
        if _order(row) != last:
            yield row
        last = _order(row)


def _order(row: Row) -> tuple[str, str, str]:
    return row["origin"], row["url"], row["seen"]


def finish(plan: Plan) -> bool:
    """Merge what retries left, and remove the records of the work that must be done anew; whether there was any.

    To be called before the stages are run, after a retry and whenever a build starts: a retry that was killed
    is put to its end by it.
    """
    found = commits.load_all(plan.root, STEP, commits.done(plan.root, STEP))
    retried = [commit for commit in found if _is_of(plan, commit)]
    for commit in retried:
        merge(commit, root=plan.root, buckets=len(plan.buckets))
    buckets, files = _changed(plan.root, retried)
    everything = {step: commits.done(plan.root, step) for step in OF_EVERYTHING} if buckets else {}
    stale = everything | dict.fromkeys(OF_BUCKETS, sorted(buckets)) | dict.fromkeys(OF_FILES, sorted(files))
    for step, names in stale.items():
        for name in names:
            storage.remove(commits.path_of(plan.root, step, name))
    for commit in found:
        storage.remove(commits.path_of(plan.root, STEP, commit.unit))
    return bool(retried)


def _is_of(plan: Plan, retried: Commit) -> bool:
    """Whether a retry belongs to pictures of this configuration, rather than to ones that are to be done anew."""
    fingerprint = plan.fingerprints()["images"]
    number = _one(retried.outputs, "retries/").split(".")[-2]
    is_current = retried.fingerprint == unit_fingerprint(fingerprint, Unit(name=retried.unit, inputs=(number,)))
    return is_current and storage.exists(commits.path_of(plan.root, "images", retried.unit))


def _changed(root: str, retried: Iterable[Commit]) -> tuple[set[str], set[str]]:
    """Buckets of which a row changed, and documents files that name one of their URLs."""
    buckets: set[str] = set()
    files: set[str] = set()
    for commit in retried:
        for row in read_rows(storage.join(root, _one(commit.outputs, "retries/")), ["units"]):
            buckets.add(commit.unit)
            files.update(row["units"])
    return buckets, files


@dataclass
class Retry(beam.PTransform):
    """Buckets -> their records, with what succeeded now."""

    root: str
    fingerprint: str
    config: ImagesConfig
    units: tuple[Unit, ...]
    buckets: int

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        step = Step(
            name=STEP, root=self.root, fingerprint=self.fingerprint, run=partial(retry_bucket, config=self.config)
        )
        merging = partial(merge, root=self.root, buckets=self.buckets)
        return pipeline | beam.Create(self.units) | Run(step) | "Merge" >> beam.Map(merging).with_output_types(Commit)
