"""Stage 3: a CLIP vector for each picture, and its similarity to every sentence of each document that has it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from apache_beam.pvalue import PCollection

from filters import contamination
from mmc4_builder import clip, commits, face_detector, storage
from mmc4_builder.commits import Commit
from mmc4_builder.images import ImageError, ImageRules, normalise
from mmc4_builder.match import similarity_matrix
from mmc4_builder.workspace import Rows, Unit, Workspace, read_rows
from pipelines import heads
from pipelines.accelerator import with_accelerator
from pipelines.config import ScoresConfig
from pipelines.schemas import FACES, FACTS, SCORED, embeddings, facts
from pipelines.store import Tars
from pipelines.units import Committed, Exchange, Run, Step, unit_fingerprint, units

TOGETHER = 256  # pictures, or documents, that are read and embedded at a time
PLACE = ("sha256", "store", "store_offset", "store_length")
ANY_SIZE = ImageRules(min_side=1, max_aspect=1000.0)  # evaluation sets hold what they hold

Vectors = npt.NDArray[np.float32]


def embed(unit: Unit, workspace: Workspace, model: clip.Clip) -> None:
    """One tar of pictures -> their vectors, and what is known of them to each documents file that names them."""
    schema = facts(model.identity.dim)
    told: dict[str, list[dict[str, Any]]] = {}
    written: set[str] = set()
    with workspace.parquet(f"scores/images/{unit.name}.parquet", embeddings(model.identity.dim)) as rows:
        for group in _groups(read_rows(workspace.path(f"images/{unit.name}.parquet")), TOGETHER):
            vectors = _embed_stored([row for row in group if row["sha256"]], workspace, model)
            for row in group:
                vector = vectors.get(row["sha256"])
                if vector is not None and row["sha256"] not in written:
                    written.add(row["sha256"])
                    rows.append({"sha256": row["sha256"], "clip": vector})
                fact = {name: row[name] for name in FACTS} | {"clip": vector}
                for documents in row["units"]:
                    told.setdefault(documents, []).append(fact)
    workspace.counts["pictures"] += len(written)
    workspace.leave("facts", {u: pa.Table.from_pylist(found, schema=schema) for u, found in told.items()})


def _embed_stored(rows: list[dict[str, Any]], workspace: Workspace, model: clip.Clip) -> dict[str, Vectors]:
    """sha256 -> vector, each picture read and embedded once."""
    distinct = {row["sha256"]: row for row in rows}
    if not distinct:
        return {}
    with Tars(workspace) as tars:
        pictures = [tars.read(row) for row in distinct.values()]
    return dict(zip(distinct, model.embed_images(pictures), strict=True))


def embed_evaluation(unit: Unit, workspace: Workspace, model: clip.Clip, *, folder: str) -> None:
    """A folder of pictures that must not be trained on -> their hashes and vectors, in one file."""
    found: list[tuple[str, int, bytes]] = []
    for name in storage.names(folder):
        try:
            picture = normalise(storage.read(storage.join(folder, name)), ANY_SIZE)
        except ImageError as error:
            workspace.bury("evaluation", error.reason, name=name)
            continue
        workspace.tally("evaluation", None)
        found.append((name, picture.phash, picture.data))
    vectors = model.embed_images([data for _, _, data in found])
    held_out = contamination.EvaluationSet(
        names=tuple(name for name, _, _ in found),
        phashes=np.array([code for _, code, _ in found], dtype=np.uint64),
        vectors=vectors,
        model=model.identity.sha256,
    )
    with workspace.create(heads.EVALUATION_FILE) as stream:
        contamination.save(held_out, stream)


def look_for_faces(unit: Unit, workspace: Workspace, model: Any) -> None:
    """One tar of pictures -> the faces that RetinaFace sees on each."""
    rows = (row for row in read_rows(workspace.path(f"images/{unit.name}.parquet"), list(PLACE)) if row["sha256"])
    with workspace.parquet(f"scores/faces/{unit.name}.parquet", FACES) as out:
        workspace.counts["pictures.looked_at"] += detect_faces(rows, workspace, model, out)


def detect_faces(rows: Iterator[dict[str, Any]], workspace: Workspace, detector: Any, out: Rows) -> int:
    """The faces on each distinct picture of `rows`, as rows of `schemas.FACES`; how many pictures these were."""
    seen: set[str] = set()
    with Tars(workspace) as tars:
        for group in _groups(rows, TOGETHER):
            new = list({row["sha256"]: row for row in group if row["sha256"] not in seen}.values())
            seen.update(row["sha256"] for row in new)
            found = face_detector.detect([tars.read(row) for row in new], detector)
            for row, faces in zip(new, found, strict=True):
                out.append({"sha256": row["sha256"], "faces": [face_row(face) for face in faces]})
    return len(seen)


def face_row(face: face_detector.Face) -> dict[str, Any]:
    """A face as a row of `schemas.FACE`."""
    return dict(zip(("x1", "y1", "x2", "y2"), face.box, strict=True)) | {"score": face.score}


def compare(unit: Unit, workspace: Workspace, model: clip.Clip) -> None:
    """One documents file -> for each document its pictures, each with its similarity to every sentence."""
    known = {row["url"]: row for row in workspace.received("facts", facts(model.identity.dim)).to_pylist()}
    documents = read_rows(workspace.path(f"documents/{unit.name}.parquet"), ["sentences", "images"])
    number = 0
    with workspace.parquet(f"scores/{unit.name}.parquet", SCORED) as rows:
        for group in _groups(documents, TOGETHER):
            pictures = [_named(document, known) for document in group]
            texts = _embed_sentences(group, pictures, model)
            for found in pictures:
                rows.append({"row": number, "images": _scored(found, texts.get(number % TOGETHER))})
                number += 1


def _named(document: dict[str, Any], known: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The document's pictures in DOM order, each URL at its first place, with what is known of it."""
    first: dict[str, dict[str, Any]] = {}
    for image in document["images"]:
        if image["url"] in known:
            first.setdefault(image["url"], image)
    return [{**known[url], "position": image["position"], "alt": image["alt"]} for url, image in first.items()]


def _embed_sentences(
    group: list[dict[str, Any]], pictures: list[list[dict[str, Any]]], model: clip.Clip
) -> dict[int, Vectors]:
    """Place in the group -> vectors of the sentences [sentences, width], for documents that have a picture."""
    wanted = [i for i, found in enumerate(pictures) if any(image["sha256"] for image in found)]
    sentences = [sentence for i in wanted for sentence in group[i]["sentences"]]
    vectors = model.embed_texts(sentences) if sentences else np.zeros((0, model.identity.dim), np.float32)
    bounds = np.cumsum([0, *(len(group[i]["sentences"]) for i in wanted)])
    return {i: vectors[bounds[n] : bounds[n + 1]] for n, i in enumerate(wanted)}


def _scored(found: list[dict[str, Any]], texts: Vectors | None) -> list[dict[str, Any]]:
    """The pictures of one document with a row of the similarity matrix each; none for what is not stored."""
    stored = [image for image in found if image["sha256"]]
    rows: dict[str, Any] = {}
    if stored and texts is not None:
        matrix = similarity_matrix(np.asarray([image["clip"] for image in stored], np.float32), texts)
        rows = {image["url"]: row for image, row in zip(stored, matrix, strict=True)}
    return [
        {**{k: v for k, v in image.items() if k != "clip"}, "similarity": rows.get(image["url"])} for image in found
    ]


def _groups(rows: Iterator[dict[str, Any]], count: int) -> Iterator[list[dict[str, Any]]]:
    while group := list(islice(rows, count)):
        yield group


@dataclass
class Scores(beam.PTransform):
    """Tars of pictures and documents files -> scores. Each step is dated by what it reads, and by nothing else."""

    root: str
    fingerprints: Mapping[str, str]  # by step
    config: ScoresConfig
    files: tuple[Unit, ...]
    buckets: tuple[Unit, ...]

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        buckets = pipeline | "Buckets" >> beam.Create(self.buckets)
        embedded = self._with_clip(buckets, "embed", embed, self.buckets)
        compared = self._with_clip(embedded | Exchange(("facts",), self.files), "scores", compare, self.files)
        ready = [embedded, buckets | Committed(self.root, "occurrences")]
        if self.config.face_detector:
            load = partial(face_detector.load, self.config.face_detector)
            ready.append(self._with_model(buckets, "faces", look_for_faces, self.buckets, load))
        if self.config.evaluation:
            one = pipeline | "Evaluation" >> beam.Create(units(1))
            measure = partial(embed_evaluation, folder=self.config.evaluation)
            ready.append(self._with_clip(one, "evaluation", measure, units(1)))
        opinions = (
            ready
            | "Ready" >> beam.Flatten()
            | Exchange(("totals",), self.buckets)
            | Run(self._step("heads", partial(heads.judge_bucket, config=self.config)))
        )
        return (compared, opinions) | "Both" >> beam.Flatten()

    def _step(self, name: str, run: Callable[..., None]) -> Step:
        return Step(name=name, root=self.root, fingerprint=self.fingerprints[name], run=run)

    def _with_clip(
        self, units: PCollection[Unit], name: str, run: Callable[..., None], all_units: tuple[Unit, ...]
    ) -> PCollection[Commit]:
        return self._with_model(units, name, run, all_units, partial(clip.load, self.config.clip))

    def _with_model(
        self,
        units: PCollection[Unit],
        name: str,
        run: Callable[..., None],
        all_units: tuple[Unit, ...],
        load: Callable[[], Any],
    ) -> PCollection[Commit]:
        """The commits of a step that needs a model, which is not loaded where nothing is left to do for it."""
        step = self._step(name, run)
        if all(
            commits.find(self.root, name, unit.name, unit_fingerprint(step.fingerprint, unit)) for unit in all_units
        ):
            return units | Committed(self.root, name)
        from pipelines.inference import RunModel  # torch comes with it, which no other stage should wait for

        return units | with_accelerator(RunModel(step, load), units.pipeline.options)
