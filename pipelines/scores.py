"""Stage 3: a CLIP vector for each picture, and its similarity to every sentence of each document that has it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from apache_beam.pvalue import PCollection

from mmc4_builder import clip, storage
from mmc4_builder.commits import Commit
from mmc4_builder.match import similarity_matrix
from mmc4_builder.workspace import Unit, Workspace, read_rows
from pipelines.config import ScoresConfig
from pipelines.schemas import FACTS, SCORED, TOTALS, embeddings, facts
from pipelines.units import Committed, Exchange, Step

TOGETHER = 256  # pictures, or documents, that are read and embedded at a time

Vectors = npt.NDArray[np.float32]


def embed(unit: Unit, workspace: Workspace, model: clip.Clip) -> None:
    """One tar of pictures -> their vectors, and all that is known of them to each documents file that names them."""
    totals = workspace.received("totals", TOTALS)
    shown = dict(zip(totals["key"].to_pylist(), totals["documents"].to_pylist(), strict=True))
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
                fact["occurrences"] = shown.get(row["phash"])
                for documents in row["units"]:
                    told.setdefault(documents, []).append(fact)
    workspace.counts["pictures"] += len(written)
    workspace.leave("facts", {u: pa.Table.from_pylist(found, schema=schema) for u, found in told.items()})


def _embed_stored(rows: list[dict[str, Any]], workspace: Workspace, model: clip.Clip) -> dict[str, Vectors]:
    """sha256 -> vector, each picture read and embedded once."""
    distinct = {row["sha256"]: row for row in rows}
    if not distinct:
        return {}
    with storage.open_read(workspace.path(rows[0]["store"])) as tar:
        pictures = [_slice(tar, row) for row in distinct.values()]
    return dict(zip(distinct, model.embed_images(pictures), strict=True))


def _slice(tar: Any, row: dict[str, Any]) -> bytes:
    tar.seek(row["store_offset"])
    data: bytes = tar.read(row["store_length"])
    return data


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
    """Tars of pictures and documents files -> scores."""

    root: str
    fingerprint: str
    config: ScoresConfig
    files: tuple[Unit, ...]
    buckets: tuple[Unit, ...]

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        from pipelines.inference import RunModel  # torch comes with it, which no other stage should wait for

        step = partial(Step, root=self.root, fingerprint=self.fingerprint)
        load = partial(clip.load, self.config.clip)
        pictures = (
            pipeline
            | "Buckets" >> beam.Create(self.buckets)
            | Committed(self.root, "occurrences")
            | Exchange(("totals",), self.buckets)
            | RunModel(step(name="embed", run=embed), load)
        )
        return pictures | Exchange(("facts",), self.files) | RunModel(step(name="scores", run=compare), load)
