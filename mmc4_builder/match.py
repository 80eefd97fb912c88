"""Which sentence a picture belongs to: cosine similarities and a bipartite assignment (MMC4 §3)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

NORM_TOLERANCE = 0.01  # half-precision embeddings leave their norms this far from 1
CORE_SIMILARITY = 0.25  # MMC4 §3, mmc4-core: an image counts when its similarity is above this
UNASSIGNED = -1


def similarity_matrix(images: npt.NDArray[np.floating], texts: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Cosines of images [n, d] and texts [m, d], both L2-normalised -> float32 [n, m] in [-1, 1].

    The sums run in double precision, so that the float32 result hardly depends on the machine's BLAS.
    Raises ValueError for shapes that do not fit, and for rows that are not finite or not of unit length.
    """
    left, right = _unit_rows(images, "images"), _unit_rows(texts, "texts")
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"images have {left.shape[1]} dimensions and texts {right.shape[1]}: embed with one model")
    cosines: npt.NDArray[np.float32] = (left @ right.T).astype(np.float32)
    return np.clip(cosines, np.float32(-1), np.float32(1))


def assign(similarity: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """The sentence of each image, for similarities [n, m] -> int64 [n].

    One to one with the greatest total. Images left over because m < n then go to their best sentence, which
    only then takes several (MMC4's compute_assignments). With no sentence at all, every image is UNASSIGNED.
    Equal totals are resolved by scipy's solver, the same way each time for the same matrix. Raises ValueError
    for a matrix that is not two-dimensional or not finite.
    """
    matrix = np.asarray(similarity)
    if matrix.ndim != 2:
        raise ValueError(f"the similarity matrix has shape {matrix.shape}, expected [images, sentences]")
    if not np.isfinite(matrix).all():
        raise ValueError("the similarity matrix holds a value that is not finite: drop that image before matching")
    n_images, n_sentences = matrix.shape
    if n_sentences == 0:
        return np.full(n_images, UNASSIGNED, dtype=np.int64)
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    if n_images <= n_sentences:
        return np.asarray(columns, dtype=np.int64)
    best: npt.NDArray[np.int64] = matrix.argmax(axis=1).astype(np.int64)
    best[rows] = columns
    return best


def core_fraction(matched_sims: Sequence[float], *, above: float = CORE_SIMILARITY) -> float:
    """The share of a document's images with an assigned similarity greater than `above`; 0.0 for none."""
    return sum(sim > above for sim in matched_sims) / len(matched_sims) if matched_sims else 0.0


def _unit_rows(rows: npt.NDArray[np.floating], name: str) -> npt.NDArray[np.float64]:
    matrix: npt.NDArray[np.float64] = np.asarray(rows, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"{name} have shape {matrix.shape}, expected [count, dimensions]")
    norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    wrong = ~(np.abs(norms - 1.0) <= NORM_TOLERANCE)  # so written, NaN counts as wrong
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"row {row} of {name} has length {norms[row]}, expected 1: normalise the embeddings")
    return matrix
