"""People's faces: by a small classifier on CLIP vectors as in MMC4 §3, by RetinaFace itself, or by both."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmc4_builder import face_head, weights_file
from mmc4_builder.face_head import FaceHeadError, Head
from mmc4_builder.weights_file import WeightsFileError

TINY = "tiny"  # ships with the package, for the tiny CLIP; knows the sample's smiling discs and nothing else
MIN_DETECTION = 0.9  # RetinaFace's default, which MMC4 kept

_TINY_FILE = Path(weights_file.__file__).parent / "sample" / "weights" / "heads" / "faces.json"
_MAX_BYTES = 1 << 20


def load(weights: str, *, dim: int | None = None) -> Head:
    """The classifier called `tiny`, or the one in a file that `--fit-faces` wrote (a path, or a URL with #sha256=).

    `dim` is the width of the CLIP's vectors, where it is known. Raises WeightsFileError.
    """
    path = weights_file.find(str(_TINY_FILE) if weights == TINY else weights, max_bytes=_MAX_BYTES)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FaceHeadError(f"{path.stat().st_size:,} bytes are more than one has")
        head = Head.from_json(path.read_text(encoding="utf-8"))
    except (FaceHeadError, UnicodeDecodeError) as error:
        raise WeightsFileError(f"{path} is no face classifier: {error}") from error
    if dim is not None and dim != len(head.coefficients):
        raise WeightsFileError(
            f"the face classifier in {path} was fitted on {len(head.coefficients)} numbers of {head.clip}, and this "
            f"CLIP makes {dim}: fit one on its vectors with --fit-faces"
        )
    return head


def score(vectors: npt.NDArray[np.float32], head: Head) -> npt.NDArray[np.float32]:
    """Probability [n] of a face for vectors [n, dim]; NaN where a vector is not finite."""
    return face_head.probabilities(vectors, head)


def strongest(detected: Sequence[Mapping[str, float]]) -> float:
    """The score of the surest of the faces that RetinaFace found, 0 for none; NaN if one has no sane score."""
    scores = [float(face["score"]) for face in detected]
    return float(np.max(scores)) if scores else 0.0


def reject(
    probability: float | None,
    detected: Sequence[Mapping[str, float]] | None = None,
    *,
    max_score: float,
    min_detection: float = MIN_DETECTION,
) -> str | None:
    """`face`, or None to keep. None stands for a model that was not asked; if neither was, nothing is kept.

    `max_score` is the threshold of the head that made the probability: what is above it goes, and NaN too.
    """
    if probability is None and detected is None:
        return "face"  # who asks for fewer faces must not get pictures that nobody looked at
    if probability is not None and not probability <= max_score:
        return "face"
    return "face" if detected is not None and not strongest(detected) < min_detection else None
