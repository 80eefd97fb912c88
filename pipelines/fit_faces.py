"""MMC4's cheap way to fewer faces (MMC4 §3): RetinaFace labels a sample, a classifier on CLIP vectors learns from it.

The sample is every picture whose SHA-256 lies below a limit, so that each unit finds its part without the others.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TextIO

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import PCollection

from mmc4_builder import commits, face_detector, face_labels, storage, weights_file
from mmc4_builder.commits import Commit
from mmc4_builder.workspace import Unit, Workspace, read_rows
from pipelines import heads
from pipelines.build import BuildError, run_stage
from pipelines.launch import Engine
from pipelines.plan import Plan, Stage, Work
from pipelines.schemas import FACES
from pipelines.scores import PLACE, detect_faces
from pipelines.units import Step

STEP = "face_labels"
HASHES = 1 << 64  # the first 64 bits of a SHA-256 decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What is asked for."""

    path: str  # of the classifier to write
    detector: str | None  # weights of RetinaFace
    sample: int  # pictures to label
    recall: float = face_labels.RECALL


def run(plan: Plan, fit: Fit, engine: Engine, stream: TextIO = sys.stderr) -> int:
    """Label pictures of a finished stage of scores, fit, write the classifier, print how good it is."""
    if fit.detector is None:
        raise BuildError("--fit-faces needs labels: give --face-detector `released`, or the path of its weights")
    face_detector.find(fit.detector)
    total = count_embedded(plan)
    label(plan, fit.detector, min(1.0, fit.sample / max(1, total)), engine, stream)
    keys, vectors, has_face = labelled(plan)
    scores = plan.build.scores
    model, report = face_labels.fit(
        vectors, has_face, keys, clip=scores.clip, clip_sha256=scores.clip_sha256, recall=fit.recall
    )
    storage.write(fit.path, model.to_json().encode())
    print(report.to_text())
    print(f"wrote {fit.path}; build with it: --faces {fit.path} --config mmc4_ff --reconfigure")
    return 0


def count_embedded(plan: Plan) -> int:
    """Pictures of the build; BuildError where their vectors are not all there."""
    (work,) = (work for work in plan.stage("scores").work if work.step == "embed")
    done = work.committed(plan.root)
    if len(done) < len(work.units):
        raise BuildError(
            f"--fit-faces needs the vectors of all pictures in {plan.root}, and {len(work.units) - len(done)} of "
            f"{len(work.units)} tars have none yet: run --stages scores first, and what comes before it"
        )
    return sum(commit.counts["pictures"] for commit in done)


def label(plan: Plan, weights: str, share: float, engine: Engine, stream: TextIO) -> None:
    """Run the detector on a share of the pictures; what an earlier run labelled is not looked at again."""
    limit = f"{min(HASHES - 1, int(share * HASHES)):016x}"
    buckets = tuple(replace(unit, inputs=(limit,)) for unit in plan.buckets)
    fingerprint = commits.fingerprint(plan.fingerprints()["images"], weights, weights_file.digest_of_file(weights))
    transform = Label(plan.root, fingerprint, weights, buckets)
    run_stage(plan, Stage(name=STEP, transform=transform, work=(Work(STEP, fingerprint, buckets),)), engine, stream)


def label_bucket(unit: Unit, workspace: Workspace, model: Any) -> None:
    """One tar of pictures -> the faces on those of the sample."""
    (limit,) = unit.inputs
    rows = read_rows(workspace.path(f"images/{unit.name}.parquet"), list(PLACE))
    chosen = (row for row in rows if row["sha256"] and row["sha256"][:16] <= limit)
    with workspace.parquet(f"scores/face_labels/{unit.name}.parquet", FACES) as out:
        workspace.counts["pictures"] += detect_faces(chosen, workspace, model, out)


def labelled(plan: Plan) -> tuple[list[str], heads.Vectors, list[bool]]:
    """SHA-256, CLIP vector and label of each picture of the sample, in order of the first."""
    found = sorted(_labelled(plan), key=lambda one: one[0])
    vectors = np.stack([vector for _, vector, _ in found]) if found else np.zeros((0, 0), np.float32)
    return [key for key, _, _ in found], vectors, [has_face for _, _, has_face in found]


def _labelled(plan: Plan) -> Iterator[tuple[str, heads.Vectors, bool]]:
    seen: set[str] = set()
    for name in _names(plan):
        workspace = Workspace(plan.root, STEP, Unit(name=name))
        table = heads.read_vectors(workspace, name)
        vectors = dict(zip(table["sha256"].to_pylist(), heads.matrix(table["clip"]), strict=True))
        for row in read_rows(workspace.path(f"scores/face_labels/{name}.parquet")):
            if row["sha256"] not in seen:
                seen.add(row["sha256"])
                yield row["sha256"], vectors[row["sha256"]], bool(row["faces"])


def _names(plan: Plan) -> list[str]:
    return [unit.name for unit in plan.buckets]


@dataclass
class Label(beam.PTransform):
    """Tars of pictures -> faces on a sample of them."""

    root: str
    fingerprint: str
    weights: str
    buckets: tuple[Unit, ...]

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        from pipelines.inference import RunModel  # torch comes with it

        step = Step(name=STEP, root=self.root, fingerprint=self.fingerprint, run=label_bucket)
        return pipeline | beam.Create(self.buckets) | RunModel(step, partial(face_detector.load, self.weights))
