"""RetinaFace: where people's faces are, through the `retinaface` library and its torch model.

The library looks at one picture at a time. Its own preparation, anchors and boxes are used here, around batches of
pictures of one size, and around a suppression of overlaps that takes linear and not quadratic time in Python.
"""

import io
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmc4_builder import weights_file
from mmc4_builder.weights_file import WeightsFileError

RELEASED = "released"
THRESHOLD = 0.9  # the library's default, which MMC4 kept
MAX_BYTES = 1 << 29  # the released file has 118 MB
MAX_CANDIDATES = 5_000  # boxes above the threshold, before overlaps go: no crowd has more

_OVERLAP = 0.4  # intersection over union from which two boxes are one face
_STRIDES = (32, 16, 8)  # of the model's three heads, in this order, each with two sizes of square anchors
_CENTRE = 7.5  # px, of the anchors of a stride's first cell
_SIDES = {32: (512, 256), 16: (128, 64), 8: (32, 16)}  # px
_REMEDY = (
    "Install it with pip install 'mmc4-build[faces]', and give the path of retinaface.pth, which its authors publish "
    "with github.com/serengil/deepface_models, where there is no network"
)

Picture = bytes | npt.NDArray[np.uint8]
"""An encoded file, or decoded RGB of shape (height, width, 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One face: corners in pixels of the picture, the second one included, and how sure the model is."""

    box: tuple[int, int, int, int]  # x1, y1, x2, y2
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A loaded model. A CPU gains nothing from batches; there each picture is a batch of its own."""

    name: str
    sha256: str
    device: str
    batch_size: int
    model: Any = field(repr=False)


def find(weights: str = RELEASED) -> Path:
    """The file behind `released`, a path, or a URL with #sha256=; `released` may be downloaded by the library.

    The authors publish no checksum, so only a path or URL with one is checked. Raises WeightsFileError.
    """
    if weights != RELEASED:
        return weights_file.find(weights, max_bytes=MAX_BYTES)
    library = _library()
    from retinaface.commons import weight_utils

    try:
        with redirect_stdout(sys.stderr):  # the library tells its progress on stdout, which is for data
            return Path(weight_utils.download_weights_if_necessary("retinaface.pth", library.WEIGHTS_URLS))
    except Exception as error:  # whatever its clients raise
        raise WeightsFileError(f"{error} {_REMEDY}") from error


def load(weights: str = RELEASED, *, device: str | None = None, batch_size: int = 8, threads: int = 1) -> Detector:
    """RetinaFace with a ResNet-50, from its authors' file for torch; nothing in it is executed.

    `device` is chosen when not given; on a CPU torch is set to `threads` threads. Raises WeightsFileError.
    """
    library, path = _library(), find(weights)
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        torch.set_num_threads(threads)
    model = library.RetinaFace()
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many kinds
        raise WeightsFileError(
            f"{path} holds no weights of RetinaFace for torch: {weights_file.cause(error)}. {_REMEDY}"
        ) from error
    return Detector(
        name=weights,
        sha256=weights_file.digest(path),
        device=device,
        batch_size=1 if device == "cpu" else batch_size,
        model=model.eval().requires_grad_(False).to(device),
    )


def detect(pictures: Sequence[Picture], detector: Detector, threshold: float = THRESHOLD) -> list[list[Face]]:
    """The faces on each picture, from left to right, then from top to bottom.

    Raises WeightsFileError where the model's answers are no numbers, which is the weights' fault.
    """
    found: list[list[Face]] = [[] for _ in pictures]
    for group in _same_size(pictures, detector.batch_size):
        prepared = [_prepare(_decoded(pictures[i])) for i in group]
        answers = _answers(np.concatenate([rows for rows, _ in prepared]), detector)
        for place, (i, (_, scale)) in enumerate(zip(group, prepared, strict=True)):
            height, width = prepared[place][0].shape[1:3]
            found[i] = _faces([one[place : place + 1] for one in answers], (height, width), scale, threshold)
    return found


def _library() -> Any:
    """The library's torch model, imported without the filter on all warnings that the package sets."""
    try:
        with warnings.catch_warnings():
            from retinaface.model import retinaface_pth_model
    except ImportError as error:
        raise WeightsFileError(f"the retinaface library cannot be imported: {error}. {_REMEDY}") from error
    return retinaface_pth_model


def _same_size(pictures: Sequence[Picture], most: int) -> Iterable[list[int]]:
    """Places of pictures of one size, at most `most` together; those too thin to be scaled are left out."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for i, picture in enumerate(pictures):
        size = _size(picture)
        if _scale(size) * min(size) >= 1:
            by_size.setdefault(size, []).append(i)
    for places in by_size.values():
        yield from (places[start : start + most] for start in range(0, len(places), most))


def _size(picture: Picture) -> tuple[int, int]:
    """(height, width). An encoded file is not decoded for it."""
    if isinstance(picture, bytes):
        with Image.open(io.BytesIO(picture)) as opened:
            return opened.height, opened.width
    return picture.shape[0], picture.shape[1]


def _scale(size: tuple[int, int]) -> float:
    """How the library scales: the shorter side to 1024 px, the longer one to 1980 px at most."""
    return min(1024 / min(size), 1980 / max(size))


def _decoded(picture: Picture) -> npt.NDArray[np.uint8]:
    """RGB."""
    if isinstance(picture, bytes):
        return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    return picture


def _prepare(rgb: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], float]:
    """What the model wants to see, [1, height, width, 3] in RGB, and the scale. The library wants BGR here."""
    from retinaface.commons import preprocess

    rows, _, scale = preprocess.preprocess_image(np.ascontiguousarray(rgb[:, :, ::-1]), True)
    return rows, float(scale)


def _answers(rows: npt.NDArray[np.float32], detector: Detector) -> list[npt.NDArray[np.float32]]:
    """Scores, boxes and landmarks [n, height, width, channels] for each stride."""
    import torch

    with torch.inference_mode():
        answers = [one.float().cpu().numpy() for one in detector.model(torch.from_numpy(rows).to(detector.device))]
    if not all(np.isfinite(one).all() for one in answers):
        raise WeightsFileError(f"RetinaFace with {detector.name} (SHA-256 {detector.sha256}) answers what is no number")
    return answers


def _faces(
    answers: Sequence[npt.NDArray[np.float32]], size: tuple[int, int], scale: float, threshold: float
) -> list[Face]:
    """Boxes of one picture from the model's answers, as the library's `detect_faces` finds them."""
    candidates = [
        _candidates(stride, answers[3 * k], answers[3 * k + 1], size, threshold) for k, stride in enumerate(_STRIDES)
    ]
    scores = np.concatenate([some for some, _ in candidates])
    boxes = (np.concatenate([some for _, some in candidates]) / scale).astype(np.float32)
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    kept = order[_suppress(boxes[order])]
    faces = [Face(box=_corners(boxes[i]), score=float(scores[i])) for i in kept]
    return sorted(faces, key=lambda face: (face.box, -face.score))


def _candidates(
    stride: int,
    probabilities: npt.NDArray[np.float32],
    deltas: npt.NDArray[np.float32],
    size: tuple[int, int],
    threshold: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """(scores [n], boxes [n, 4] on the scaled picture) of one stride's anchors above the threshold."""
    from retinaface.commons import postprocess

    scores = probabilities[..., 2:].reshape(-1)  # channels: background of both anchors, then face of both
    chosen = np.flatnonzero(scores >= threshold)
    rows, columns = deltas.shape[1:3]
    anchors = postprocess.anchors_plane(rows, columns, stride, _anchors(stride)).reshape(-1, 4)[chosen]
    with np.errstate(over="ignore"):  # a box may be as large as it likes: it is cut to the picture
        boxes = postprocess.bbox_pred(anchors, deltas.reshape(-1, 4)[chosen])
    return scores[chosen], postprocess.clip_boxes(boxes.reshape(-1, 4), size)


def _anchors(stride: int) -> npt.NDArray[np.float32]:
    """Square boxes [2, 4] of the first cell, corners included; at every stride they lie around the same point."""
    halves = [(side - 1) / 2 for side in _SIDES[stride]]
    return np.array([[_CENTRE - half] * 2 + [_CENTRE + half] * 2 for half in halves], dtype=np.float32)


def _suppress(boxes: npt.NDArray[np.float32]) -> list[int]:
    """Places of the boxes [n, 4], surest first, that do not overlap with a surer one that stays."""
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    kept, left = list[int](), np.arange(len(boxes))
    while len(left):
        first, rest = left[0], left[1:]
        kept.append(int(first))
        width = np.maximum(0, np.minimum(x2[first], x2[rest]) - np.maximum(x1[first], x1[rest]) + 1)
        height = np.maximum(0, np.minimum(y2[first], y2[rest]) - np.maximum(y1[first], y1[rest]) + 1)
        shared = width * height
        left = rest[shared / (areas[first] + areas[rest] - shared) < _OVERLAP]
    return kept


def _corners(box: npt.NDArray[np.float32]) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = (int(side) for side in box)
    return x1, y1, x2, y2
