"""Nudity and worse: the classifier on CLIP vectors that DataComp published and MMC4 used (MMC4 §3)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmc4_builder import weights_file
from mmc4_builder.clip import Identity
from mmc4_builder.weights_file import WeightsFileError

RELEASED = "released"  # for OpenAI's CLIP ViT-L/14, and no other
RELEASED_URL = "https://github.com/mlfoundations/dataset2metadata/releases/download/v0.1.0-alpha/nsfw_torch.pt"
RELEASED_SHA256 = "3c97d5478477c181bfa29a33e6933f710c8ec587e3c3551ff855e293acdaf390"
TINY = "tiny"  # ships with the package, for the tiny CLIP; knows the sample's stand-in and nothing else

_TINY_FILE = Path(weights_file.__file__).parent / "sample" / "weights" / "heads" / "nsfw.safetensors"
_MAX_BYTES = 16 << 20  # the released file has less than one
_NORM = ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
_DENSE = ("dense", "dense1", "dense2", "dense3")
_WIDTHS = (64, 512, 256, 1)  # outputs of each
_UNIT = 1e-2  # how far a vector's length may be from 1; half precision stays within a tenth of it

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The network with its BatchNorm folded into the first layer."""

    identity: Identity  # `dim` is what it wants of the CLIP
    layers: tuple[tuple[Array, Array], ...] = field(repr=False)  # (weight [out, in], bias [out])


def find(weights: str = RELEASED) -> Path:
    """The file behind `released`, `tiny`, a path or a URL with its checksum; nothing is loaded.

    Raises WeightsFileError.
    """
    if weights == TINY:
        return weights_file.find(str(_TINY_FILE))
    try:
        if weights in (RELEASED, RELEASED_URL):
            return weights_file.find(RELEASED_URL, RELEASED_SHA256, max_bytes=_MAX_BYTES)
        return weights_file.find(weights, max_bytes=_MAX_BYTES)
    except WeightsFileError as error:
        raise WeightsFileError(f"{error}. Or leave this classifier out: --nsfw none") from error


def load(weights: str = RELEASED, *, dim: int | None = None) -> Head:
    """The classifier in a `.pt` or `.safetensors` file with the released key names; nothing in it is executed.

    `dim` is the width of the CLIP's vectors, where it is known. Raises WeightsFileError.
    """
    path = find(weights)
    try:
        state = _read(path)
    except Exception as error:  # torch and safetensors each raise their own kinds
        raise WeightsFileError(f"{path} cannot be read as weights: {weights_file.cause(error)}") from error
    layers = _layers(state, path)
    width = layers[0][0].shape[1]
    if dim is not None and dim != width:
        raise WeightsFileError(
            f"the classifier in {path} wants CLIP vectors of {width} numbers, and this CLIP makes {dim}: "
            "`released` goes with ViT-L-14:openai, `tiny` with the tiny CLIP; or leave it out: --nsfw none"
        )
    return Head(identity=Identity(name=weights, sha256=weights_file.digest(path), dim=width), layers=layers)


def score(vectors: npt.NDArray[np.float32], head: Head) -> npt.NDArray[np.float32]:
    """Probability [n] for unit vectors [n, dim]; NaN for a row that is no unit vector, and so no embedding."""
    if vectors.ndim != 2 or vectors.shape[1] != head.identity.dim:
        raise ValueError(f"the classifier wants vectors [n, {head.identity.dim}], got {vectors.shape}")
    # Twice the precision of the vectors, so that the result does not depend on how rows were grouped.
    rows = vectors.astype(np.float64)
    is_unit = np.abs(np.linalg.norm(rows, axis=1) - 1) <= _UNIT
    rows[~is_unit] = 0
    for weight, bias in head.layers[:-1]:
        rows = np.maximum(rows @ weight.T + bias, 0)
    weight, bias = head.layers[-1]
    logits = (rows @ weight.T + bias)[:, 0]
    # Far out, both halves of a sigmoid are 0 or 1 in single precision; clipping keeps exp from overflowing.
    found = 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
    return np.where(is_unit, found, np.nan).astype(np.float32)


def reject(score: float, *, max_score: float = 0.1) -> str | None:
    """`nsfw`, or None to keep. What has no score, NaN, is not kept."""
    return None if score <= max_score else "nsfw"


def _read(path: Path) -> Mapping[str, Any]:
    """Tensors by key, as numpy arrays of double precision where they are tensors at all."""
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"it has {path.stat().st_size:,} bytes, more than this classifier can have")
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return {key: np.asarray(value, dtype=np.float64) for key, value in load_file(path).items()}
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping):
        raise ValueError(f"it holds a {type(state).__name__}, and no dictionary of tensors")
    return {str(key): _array(value) for key, value in state.items()}


def _array(value: Any) -> Array:
    import torch

    if not isinstance(value, torch.Tensor):
        raise ValueError(f"it holds a {type(value).__name__} among the tensors")
    return value.detach().to(torch.float64).numpy()


def _layers(state: Mapping[str, Array], path: Path) -> tuple[tuple[Array, Array], ...]:
    """BatchNorm1d(dim, eps=0) and four Linear as (weight, bias), the first with the normalisation in it."""
    _check_shapes(state, path)
    gain, shift, mean, variance = (state[key] for key in _NORM)
    if not (variance > 0).all():
        raise WeightsFileError(f"norm.running_var in {path} is not above 0 everywhere: eps is 0, so it divides")
    scale = gain / np.sqrt(variance)
    weight, bias = state["dense.weight"], state["dense.bias"]
    first = (weight * scale, bias + weight @ (shift - mean * scale))
    return first, *((state[f"{name}.weight"], state[f"{name}.bias"]) for name in _DENSE[1:])


def _check_shapes(state: Mapping[str, Array], path: Path) -> None:
    keys = {*_NORM, *(f"{name}.{part}" for name in _DENSE for part in ("weight", "bias"))}
    found = set(state) - {"norm.num_batches_tracked"}
    if found != keys:
        raise WeightsFileError(
            f"{path} is not this classifier: keys missing {sorted(keys - found)}, unknown {sorted(found - keys)[:8]}"
        )
    dim = state["norm.weight"].size
    for key in _NORM:
        _check(state[key], key, (dim,), path)
    for name, inputs, outputs in zip(_DENSE, (dim, *_WIDTHS), _WIDTHS, strict=False):
        _check(state[f"{name}.weight"], f"{name}.weight", (outputs, inputs), path)
        _check(state[f"{name}.bias"], f"{name}.bias", (outputs,), path)


def _check(value: Array, key: str, shape: tuple[int, ...], path: Path) -> None:
    if value.shape != shape:
        raise WeightsFileError(f"{key} in {path} must have the shape {shape}, got {value.shape}")
    if not np.isfinite(value).all():
        raise WeightsFileError(f"{key} in {path} holds numbers that are not finite")
