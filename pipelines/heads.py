"""The small models' half of stage 3: what they, and the whole corpus, say of each picture. No picture is opened.

Vectors are at rest by now, so that another head, or another list of evaluation pictures, costs seconds.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from filters import contamination, faces, nsfw
from filters.duplicates import FrequentIndex
from mmc4_builder import storage
from mmc4_builder.workspace import Unit, Workspace, read_rows
from pipelines.config import ScoresConfig
from pipelines.schemas import FACES, FREQUENT, OPINIONS, SCORES, TOTALS

FREQUENT_FILE = "images/frequent.parquet"
EVALUATION_FILE = "scores/evaluation.parquet"

Opinion = dict[str, Any]
Vectors = npt.NDArray[np.float32]


def judge_bucket(unit: Unit, workspace: Workspace, *, config: ScoresConfig) -> None:
    """One tar's vectors -> opinions on its pictures, to each documents file that names them."""
    stored, named = _stored(workspace, unit.name)
    table = read_vectors(workspace, unit.name)
    found = opinions(table, {sha256: stored[sha256] for sha256 in table["sha256"].to_pylist()}, workspace, config)
    with workspace.parquet(f"scores/opinions/{unit.name}.parquet", SCORES) as rows:
        rows.extend({"sha256": sha256, **found[sha256]} for sha256 in found)
    told: dict[str, list[Opinion]] = {}
    for url, sha256, units in named:
        for documents in units:
            told.setdefault(documents, []).append({"url": url, **found[sha256]})
    workspace.leave("opinions", {u: pa.Table.from_pylist(rows, schema=OPINIONS) for u, rows in told.items()})


def opinions(
    table: pa.Table, hashes: Mapping[str, int], workspace: Workspace, config: ScoresConfig
) -> dict[str, Opinion]:
    """sha256 -> what is said of the picture, for every row of a table of vectors."""
    vectors = matrix(table["clip"])
    keys = table["sha256"].to_pylist()
    codes = np.array([hashes[key] for key in keys], dtype=np.uint64)
    columns: dict[str, Iterable[Any]] = {"occurrences": occurrences(codes, workspace, config.frequent_distance)}
    if config.nsfw:
        columns["nsfw"] = nsfw.score(vectors, nsfw.load(config.nsfw, dim=vectors.shape[1])).tolist()
    if config.faces:
        columns["face"] = faces.score(vectors, faces.load(config.faces, dim=vectors.shape[1])).tolist()
    if config.face_detector:
        detected = {row["sha256"]: row["faces"] for row in read_faces(workspace, workspace.unit.name)}
        columns["faces"] = [detected[key] for key in keys]
    if config.evaluation:
        with storage.open_read(workspace.path(EVALUATION_FILE)) as stream:
            held_out = contamination.load(stream)
        columns["evaluation_distance"] = contamination.distances(codes, held_out).tolist()
        columns["evaluation_similarity"] = contamination.similarities(vectors, held_out).tolist()
    return {
        key: dict(zip(columns, values, strict=True))
        for key, values in zip(keys, zip(*columns.values(), strict=True), strict=True)
    }


def occurrences(codes: npt.NDArray[np.uint64], workspace: Workspace, distance: int) -> list[int]:
    """How many documents show each of these hashes, or a frequent one that differs in at most `distance` bits."""
    totals = workspace.received("totals", TOTALS)
    exact = dict(zip(totals["key"].to_pylist(), totals["documents"].to_pylist(), strict=True))
    frequent = pq.read_table(pa.BufferReader(storage.read(workspace.path(FREQUENT_FILE))), schema=FREQUENT)
    index = FrequentIndex(frequent["key"].to_numpy(), frequent["documents"].to_numpy(), max_distance=distance)
    return [max(exact[code], near) for code, near in zip(codes.tolist(), index.counts(codes).tolist(), strict=True)]


def read_vectors(workspace: Workspace, bucket: str) -> pa.Table:
    """CLIP vectors of one tar, by sha256."""
    return pq.read_table(pa.BufferReader(storage.read(workspace.path(f"scores/images/{bucket}.parquet"))))


def read_faces(workspace: Workspace, bucket: str) -> Iterable[dict[str, Any]]:
    """What the detector found in one tar."""
    return read_rows(workspace.path(f"scores/faces/{bucket}.parquet"), FACES.names)


def matrix(column: pa.ChunkedArray) -> Vectors:
    """A column of fixed-size lists as [rows, width]."""
    width = column.type.list_size
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float32).reshape(-1, width)


def _stored(workspace: Workspace, bucket: str) -> tuple[dict[str, int], list[tuple[str, str, list[str]]]]:
    """sha256 -> perceptual hash; and (URL, sha256, documents files that name it) of every stored picture."""
    columns = ["url", "sha256", "phash", "units"]
    rows = [row for row in read_rows(workspace.path(f"images/{bucket}.parquet"), columns) if row["sha256"]]
    return {row["sha256"]: row["phash"] for row in rows}, [(r["url"], r["sha256"], r["units"]) for r in rows]
