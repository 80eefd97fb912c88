"""Pictures of evaluation sets, found by perceptual hash and by CLIP vector, so that tests stay tests.

MMC4 does not say that it removed any. The list is the user's: an `EvaluationSet`, made of the pictures of whatever
a model will be tested on, kept as Parquet with the columns phash, name, and clip where there are vectors.
Against 40 thousand of them, a picture takes 0.1 ms by its hash and 2 to 4 ms by a vector of 768, on one core: far
less than its CLIP vector did.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

_PAIRS = 1 << 20  # that are compared at once: 9 MB
NOTHING_NEAR = 65  # bits, the distance where there is nothing to compare with: more than any


class EvaluationSetError(ValueError):
    """A file or arrays that are no evaluation set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContaminationRules:
    """How near is the same picture; None switches a test off.

    10 bits is what MMC4 calls the same in its core subset. It is wider than the 5 of its other subsets because a
    picture too many that goes costs nothing, and one too few that stays spoils a test. Half-size copies of low
    quality differ by 2 bits (95 %), unlike pictures by 22 and more; by chance one pair in 10^8 is within 10, or
    0.1 % of pictures against a list of 100 thousand.
    The cosine has no such basis: CLIP sees what is shown and not which picture it is, and no published limit is
    for it. 0.95 is set to be high, so as to add crops and recoloured copies; look at what it drops.
    """

    max_distance: int | None = 10  # bits of 64
    min_similarity: float | None = 0.95  # cosine of ViT-L/14 vectors; others have another scale

    def __post_init__(self) -> None:
        if self.max_distance is not None and not 0 <= self.max_distance <= 64:
            raise ValueError(f"max_distance is {self.max_distance}; give 0 to 64 bits, or None")
        if self.min_similarity is not None and not -1 <= self.min_similarity <= 1:
            raise ValueError(f"min_similarity is {self.min_similarity}; give a cosine, -1 to 1, or None")


RULES = ContaminationRules()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationSet:
    """Pictures to keep out. Vectors are made unit length here."""

    phashes: NDArray[np.uint64]  # [m]
    names: tuple[str, ...]  # [m], such as "coco/val2014/391895"
    vectors: NDArray[np.float32] | None = None  # [m, dim]
    model: str = ""  # sha256 of the weights that made the vectors: only theirs may be compared

    def __post_init__(self) -> None:
        if self.phashes.shape != (len(self.names),):
            raise EvaluationSetError(f"phashes have shape {self.phashes.shape}, but there are {len(self.names)} names")
        if self.vectors is None:
            return
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.names):
            raise EvaluationSetError(f"vectors have shape {self.vectors.shape}; give one to each of the names")
        if not np.isfinite(self.vectors).all():
            raise EvaluationSetError("vectors hold NaN or infinity; embed the evaluation set again")
        object.__setattr__(self, "vectors", _unit(self.vectors))


def save(evaluation: EvaluationSet, file: str | Path | BinaryIO) -> None:
    """Write an evaluation set as Parquet."""
    columns = {"phash": pa.array(evaluation.phashes, pa.uint64()), "name": pa.array(evaluation.names, pa.string())}
    if evaluation.vectors is not None:
        flat = pa.array(evaluation.vectors.ravel(), pa.float32())
        columns["clip"] = pa.FixedSizeListArray.from_arrays(flat, evaluation.vectors.shape[1])
    pq.write_table(pa.table(columns).replace_schema_metadata({"model": evaluation.model}), file)


def load(file: str | Path | BinaryIO) -> EvaluationSet:
    """Read an evaluation set; raises EvaluationSetError with what is wrong with the file."""
    try:
        table = pq.read_table(file)
        phashes = table["phash"].cast(pa.uint64()).to_numpy()
        names = tuple(table["name"].cast(pa.string()).to_pylist())
        vectors = _vectors(table["clip"]) if "clip" in table.column_names else None
    except (pa.ArrowException, KeyError) as error:
        raise EvaluationSetError(
            f"this is no evaluation set: {error}; give Parquet with phash (uint64), name (string) and, where there "
            "are vectors, clip (fixed-size list of float32), no nulls"
        ) from error
    if None in names or phashes.dtype != np.uint64:
        raise EvaluationSetError("phash or name holds nulls; give both for each picture")
    model = (table.schema.metadata or {}).get(b"model", b"").decode("utf-8", "replace")
    return EvaluationSet(phashes=phashes, names=names, vectors=vectors, model=model)


def distances(phashes: NDArray[np.uint64], evaluation: EvaluationSet) -> NDArray[np.uint8]:
    """Bits between each of n hashes and the nearest of the set [n]; NOTHING_NEAR for an empty set."""
    wanted = np.unique(evaluation.phashes)
    nearest = np.full(len(phashes), NOTHING_NEAR, np.uint8)
    if len(wanted):
        for part in _parts(len(phashes), len(wanted)):
            nearest[part] = np.bitwise_count(phashes[part, None] ^ wanted).min(axis=1)
    return nearest


def similarities(vectors: NDArray[np.float32], evaluation: EvaluationSet) -> NDArray[np.float32]:
    """The highest cosine of each of n vectors with the set [n]; -1 for a set without vectors."""
    highest = np.full(len(vectors), -1, np.float32)
    wanted = evaluation.vectors
    if wanted is None or not len(wanted):
        return highest
    if vectors.ndim != 2 or vectors.shape[1] != wanted.shape[1]:
        raise EvaluationSetError(
            f"vectors have shape {vectors.shape}, those of the evaluation set {wanted.shape}; embed it with this model"
        )
    for part in _parts(len(vectors), len(wanted)):
        highest[part] = (_unit(vectors[part]) @ wanted.T).max(axis=1)
    return highest


def reject(distance: int, similarity: float | None, *, rules: ContaminationRules = RULES) -> str | None:
    """`evaluation_image` for a picture that a test shows, by its hash or by its vector, or None to keep."""
    if rules.max_distance is not None and distance <= rules.max_distance:
        return "evaluation_image"
    if rules.min_similarity is not None and similarity is not None and similarity >= rules.min_similarity:
        return "evaluation_image"
    return None


def _parts(rows: int, columns: int) -> Sequence[slice]:
    step = max(1, _PAIRS // columns)
    return [slice(start, start + step) for start in range(0, rows, step)]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths), np.float32)


def _vectors(column: pa.ChunkedArray) -> NDArray[np.float32]:
    if not pa.types.is_fixed_size_list(column.type) or column.null_count:
        raise pa.ArrowInvalid(f"clip is {column.type} with {column.null_count} nulls")
    whole = column.combine_chunks()
    flat = whole.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(len(column), column.type.list_size), np.float32)
