"""The pipelines of a removal: erase, decide anew, write tars anew, prove."""

import json
from dataclasses import dataclass
from functools import partial

import apache_beam as beam
from apache_beam.pvalue import PCollection

from mmc4_builder import absence, storage, tombstones
from mmc4_builder.absence import Needles
from mmc4_builder.commits import Commit
from mmc4_builder.workspace import Unit, Workspace
from pipelines.config import Build
from pipelines.erase_docs import redecide, rewrite_tar
from pipelines.erase_units import erase, find
from pipelines.plan import Plan
from pipelines.units import Committed, Exchange, Run, Step

STEPS = ("erase_find", "erase", "erase_docs", "erase_shards")
PROOF = "prove"


@dataclass
class Erase(beam.PTransform):
    """Buckets of pictures -> files of all steps without what goes."""

    root: str
    fingerprint: str
    buckets: tuple[Unit, ...]
    units: tuple[Unit, ...]

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        step = partial(Step, root=self.root, fingerprint=self.fingerprint)
        found = pipeline | beam.Create(self.buckets) | Run(step(name="erase_find", run=find))
        return found | Exchange(("erased",), self.units) | Run(step(name="erase", run=erase))


@dataclass
class Redecide(beam.PTransform):
    """Documents files that were decided on -> docs shards without what went."""

    plan: Plan
    fingerprint: str
    decided: frozenset[str]  # units
    tars: tuple[Unit, ...]

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        build, root = self.plan.build, self.plan.root
        buckets = pipeline | beam.Create(self.plan.buckets)
        steps = ("images", "heads", *(("near_text",) if build.documents.near_text else ()))
        told = [buckets | Committed(root, step) for step in steps]
        run = partial(_redecide, decided=self.decided, build=build, tars=self.tars)
        step = Step(name="erase_docs", root=root, fingerprint=self.fingerprint, run=run)
        return (
            told
            | beam.Flatten()
            | Exchange(("page_statements", "opinions", "near_losers"), self.plan.files)
            | Run(step)
        )


def _redecide(
    unit: Unit, workspace: Workspace, *, decided: frozenset[str], build: Build, tars: tuple[Unit, ...]
) -> None:
    if unit.name in decided:
        redecide(unit, workspace, config=build.interleave, tars=tars)


@dataclass
class Tars(beam.PTransform):
    """Docs shards that changed -> the tars that hold their documents."""

    plan: Plan
    fingerprint: str
    written: frozenset[str]  # units
    tars: tuple[Unit, ...]

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        run = partial(_rewrite_tar, written=self.written, build=self.plan.build)
        step = Step(name="erase_shards", root=self.plan.root, fingerprint=self.fingerprint, run=run)
        files = pipeline | beam.Create(self.plan.files)
        return files | Committed(self.plan.root, "erase_docs") | Exchange(("slots",), self.tars) | Run(step)


def _rewrite_tar(unit: Unit, workspace: Workspace, *, written: frozenset[str], build: Build) -> None:
    if unit.name in written:
        rewrite_tar(unit, workspace, config=build.shards, policy=build.interleave)


@dataclass
class Prove(beam.PTransform):
    """Batches of files -> what they still name."""

    root: str
    fingerprint: str
    units: tuple[Unit, ...]

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        step = Step(name=PROOF, root=self.root, fingerprint=self.fingerprint, run=search)
        return pipeline | beam.Create(self.units) | Run(step)


def search(unit: Unit, workspace: Workspace) -> None:
    """Search some files for all tombstones; a line for each key that a file names."""
    keys = storage.read(workspace.path(tombstones.PATH)).decode("utf-8").splitlines()
    needles = Needles.of(keys)
    with workspace.create(f"removals/hits/{unit.name}.jsonl") as stream:
        for path in unit.inputs:
            if not storage.exists(workspace.path(path)):
                continue  # a progress file that came and went
            hits, inside = absence.search(workspace.path(path), needles)
            for key in sorted({*hits, *inside}):
                found = {"path": path, "key": key, "hits": hits[key], "inside": inside[key]}
                stream.write(json.dumps(found).encode() + b"\n")
            workspace.counts["files"] += 1
