"""A 64-bit perceptual hash: pictures that look alike differ in few bits.

The family of findimagedupes and imagehash (MMC4 §3): luma, 32x32, DCT, 8x8 low frequencies without the
constant ones, each compared with their median. It costs what the shrinking costs, so give it small pictures.
"""

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32  # of the thumbnail that is hashed, px
_HALVED_FROM = 4 * SIDE  # px, shorter side; 2% more copies are recognised than from 8 SIDE
_LOW = 8  # frequencies 1.._LOW a side make _LOW**2 = 64 bits
# A coefficient must pass the median by more than the noise that a JPEG leaves (under one grey level), else
# the many coefficients of about nothing, in drawings and symmetric pictures, are 64 coins thrown anew.
_NOISE = 1.0
# Photographs and plots set 25 bits and more. Flags, gradients and single shapes set few, and then different
# ones would be called the same; below this many bits a picture only equals its exact thumbnail.
_MIN_BITS = 16


def _basis() -> NDArray[np.float32]:
    """Rows 1.._LOW of the orthonormal DCT-II of length SIDE, shape (_LOW, SIDE)."""
    k = np.arange(1, _LOW + 1)[:, None]
    n = np.arange(SIDE)[None, :]
    rows: NDArray[np.float64] = np.sqrt(2 / SIDE) * np.cos(np.pi * k * (2 * n + 1) / (2 * SIDE))
    return rows.astype(np.float32)


_BASIS = _basis()


def phash(picture: Image.Image | NDArray[np.uint8]) -> int:
    """The hash of a picture of any size: grey or RGB, as (height, width[, 1 or 3]) bytes or as a PIL image.

    Bit 63 is the lowest frequency. Pictures with too little structure to compare get a digest instead, which
    is the same for the same picture and far from all others.
    """
    return hash_thumbnail(thumbnail(picture))


def thumbnail(picture: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma averaged to SIDE x SIDE, whatever the aspect."""
    pixels = np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)
    if pixels.shape[2:] == (1,):
        pixels = pixels[..., 0]
    elif pixels.ndim == 3:
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    # Halves, then blocks: several times cheaper than one resize, and the rest is small.
    while min(pixels.shape) >= _HALVED_FROM:
        pixels = np.asarray(cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    grey = Image.fromarray(pixels)
    steps = max(1, grey.width // (2 * SIDE)), max(1, grey.height // (2 * SIDE))
    return np.asarray(grey.reduce(steps).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def hash_thumbnail(thumb: NDArray[np.uint8]) -> int:
    """The hash of a luma thumbnail of shape (SIDE, SIDE)."""
    low = (_BASIS @ thumb.astype(np.float32) @ _BASIS.T).ravel()
    bits = low > np.median(low) + _NOISE
    if np.count_nonzero(bits) < _MIN_BITS:
        return int.from_bytes(hashlib.blake2b(thumb.tobytes(), digest_size=8).digest(), "big")
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hamming(a: int, b: int) -> int:
    """How many of the 64 bits differ."""
    return (a ^ b).bit_count()


def hamming_matrix(hashes: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """All distances: (n,) hashes to (n, n) bits. Needs 9 n^2 bytes: for a document, not for a corpus."""
    distances: NDArray[np.uint8] = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    return distances
