"""A picture file becomes pixels of the vision encoder's size, and no more of it is decoded than that needs.

A JPEG's own transform gives a half, a quarter or an eighth of its size for a part of the work. Pixels are uint8 RGB.
"""

import math
import random
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mmc4_builder.image_decode import Pixels
from mmc4_builder.image_decode import decode as decode_file
from mmc4_builder.image_header import Header, ImageError, count_scans, read_header
from mmc4_builder.image_planes import steady_opencv
from train.config import ImagesConfig
from train.sequences import Skip

MAX_PIXELS = 64_000_000  # as stored; a file of a few kilobytes can claim gigabytes
MAX_SCANS = 100  # of a JPEG: each walks the whole picture once more
# BYOL's colour jitter (Grill et al. 2020, table 6), of the laboratory that Flamingo comes from, whose paper names
# none: chance, then how far brightness, contrast and saturation may go from 1, and hue from 0 in turns.
_JITTER_CHANCE, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 0.8, 0.4, 0.4, 0.2, 0.1
_LUMA = np.array([0.299, 0.587, 0.114])
# Below this ratio INTER_AREA looks no better than INTER_LINEAR, and takes five times as long.
_LINEAR_UP_TO = 4 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What chance does to a picture; all frames of a video get the same."""

    mirrored: bool = False
    jitter: tuple[float, float, float, float] | None = None  # brightness, contrast, saturation, hue


def draw(config: ImagesConfig, rng: random.Random) -> Look:
    mirrored = rng.random() < config.flip
    if not config.colour or rng.random() >= _JITTER_CHANCE:
        return Look(mirrored=mirrored)
    around = (1 + rng.uniform(-reach, reach) for reach in (_BRIGHTNESS, _CONTRAST, _SATURATION))
    return Look(mirrored=mirrored, jitter=(*around, rng.uniform(-_HUE, _HUE)))  # type: ignore[arg-type]


def decode(data: bytes, side: int, config: ImagesConfig, rng: random.Random) -> Pixels:
    """[3, side, side], perhaps a view of other memory. Raises Skip: bad_image."""
    look = draw(config, rng)
    try:
        header = _admitted(data)
        short, long = sorted((header.width, header.height))
        needed = side if config.fit == "pad" else -(-side * long // short)
        steady_opencv()
        pixels, turn = decode_file(data, header, max_side=needed)
        return fitted(_turned(pixels, turn), side, config, look)
    except (ImageError, MemoryError, cv2.error) as error:
        raise Skip("bad_image") from error


def fitted(pixels: Pixels, side: int, config: ImagesConfig, look: Look) -> Pixels:
    """RGB [h, w, 3] as [3, side, side]: a view where that saves a copy, as batches copy once more anyway."""
    if config.fit == "crop":
        pixels = _resized(_square(pixels), side, side)
    elif config.fit == "squash":
        pixels = _resized(pixels, side, side)
    else:
        pixels = _padded(pixels, side)
    if look.jitter:
        pixels = np.asarray(cv2.transform(pixels, _matrix(pixels, *look.jitter)), np.uint8)
    if look.mirrored:
        pixels = pixels[:, ::-1]
    planes: Pixels = pixels.transpose(2, 0, 1)
    return planes


def _admitted(data: bytes) -> Header:
    """What may be decoded: its first bytes tell how much there is."""
    header = read_header(data)
    if header.width * header.height > MAX_PIXELS:
        raise ImageError("too_many_pixels", f"{header.width}x{header.height}")
    if header.format == "jpeg" and not header.one_scan and count_scans(data) > MAX_SCANS:
        raise ImageError("too_many_scans")
    return header


def _turned(pixels: Pixels, turn: int) -> Pixels:
    """As EXIF's orientation has it: captions are about pictures as people see them."""
    if turn >= 5:
        pixels = pixels.transpose(1, 0, 2)
    vertical, horizontal = turn in (3, 4, 7, 8), turn in (2, 3, 6, 7)
    return pixels[:: -1 if vertical else 1, :: -1 if horizontal else 1]


def _square(pixels: Pixels) -> Pixels:
    """The square in the middle, cut out before it is resized and not after."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _resized(pixels: Pixels, width: int, height: int) -> Pixels:
    ratio = max(pixels.shape[1] / width, pixels.shape[0] / height)
    if ratio == 1 and pixels.shape[:2] == (height, width):
        return pixels
    how = cv2.INTER_AREA if ratio > _LINEAR_UP_TO else cv2.INTER_LINEAR if ratio >= 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=how), np.uint8)


def _padded(pixels: Pixels, side: int) -> Pixels:
    """All of the picture, and its mean colour around it (paper B.1.2)."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    inner = _resized(pixels, max(1, round(width * scale)), max(1, round(height * scale)))
    square = np.empty((side, side, 3), np.uint8)
    square[:] = np.round(inner.mean((0, 1)))
    top, left = (side - inner.shape[0]) // 2, (side - inner.shape[1]) // 2
    square[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return square


def _matrix(pixels: Pixels, brightness: float, contrast: float, saturation: float, hue: float) -> NDArray[np.float32]:
    """All four changes as one affine map [3, 4] of a colour: they are linear, with hue as a turn of the colour cube.

    Contrast is around the picture's mean grey, saturation around each pixel's own; the turn is about the grey axis
    (Rodrigues' formula).
    """
    grey = float(_LUMA @ pixels.mean((0, 1))) * brightness
    saturate = saturation * np.eye(3) + (1 - saturation) * _LUMA[None].repeat(3, 0)
    cosine, sine = math.cos(2 * math.pi * hue), math.sin(2 * math.pi * hue) / math.sqrt(3)
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    turn = cosine * np.eye(3) + sine * across + (1 - cosine) / 3
    linear = turn @ saturate
    shift = linear @ np.full(3, (1 - contrast) * grey)
    return np.concatenate([linear * (brightness * contrast), shift[:, None]], 1).astype(np.float32)
