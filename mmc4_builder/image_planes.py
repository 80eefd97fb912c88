"""RGB pixels become a smaller JPEG by way of its own planes: luma, and colours at half the size.

A JPEG of 4:2:0 stores half as many samples as RGB has, so all work after the decoder is on half as many, and
the luma is at hand for the perceptual hash. Every step is integer arithmetic in OpenCV that gives the same
bytes on every x86 processor, once `steady_opencv` has switched off Intel's IPP, which does not.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

Plane = NDArray[np.uint8]  # (height, width)

_BLUR = 0.22  # side taps of the blur for each unit of scale above 1; the best, against Lanczos, from 1.1 to 2
_LEAST_BLUR = 0.02
# EXIF orientation: whether rows and columns change places, then cv2.flip's code
_TURNS: dict[int, tuple[bool, int | None]] = {
    1: (False, None),
    2: (False, 1),
    3: (False, -1),
    4: (False, 0),
    5: (True, None),
    6: (True, 1),
    7: (True, -1),
    8: (True, 0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planes:
    """A picture as full-range YCbCr of BT.601, colours at half the size, rounded up, as in JPEG 4:2:0."""

    luma: Plane
    blue: Plane
    red: Plane


def steady_opencv() -> None:
    """OpenCV in one thread, and with the same result on every processor. For the calling thread, in 0.3 us.

    Workers are processes already. IPP's cubic differs in the last bit between SSE, AVX2 and AVX-512; OpenCV's own
    takes longer, which is why it is only used on planes.
    """
    cv2.setNumThreads(1)
    cv2.ipp.setUseIPP(False)


def to_planes(rgb: NDArray[np.uint8], *, width: int, height: int, turn: int = 1) -> Planes:
    """RGB (h, w, 3) shrunk to width x height, which is no more than it has, then turned as EXIF says."""
    luma = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    odd_rows, odd_columns = rgb.shape[0] % 2, rgb.shape[1] % 2
    if odd_rows or odd_columns:
        rgb = np.asarray(cv2.copyMakeBorder(rgb, 0, odd_rows, 0, odd_columns, cv2.BORDER_REPLICATE), np.uint8)
    colours = cv2.cvtColor(_halved(rgb), cv2.COLOR_RGB2YCrCb)
    half = ((width + 1) // 2, (height + 1) // 2)
    red, blue = (np.asarray(cv2.extractChannel(colours, channel), np.uint8) for channel in (1, 2))
    return Planes(
        luma=_turned(shrink(luma, width, height), turn),
        blue=_turned(shrink(blue, *half), turn),
        red=_turned(shrink(red, *half), turn),
    )


def encode(planes: Planes, *, quality: int) -> bytes:
    """A JPEG with nothing but the picture in it."""
    jpeg: bytes = simplejpeg.encode_jpeg_yuv_planes(
        _even_behind(planes.luma), planes.blue, planes.red, quality=quality, fastdct=False
    )
    return jpeg


def _even_behind(plane: Plane) -> Plane:
    """The plane as part of one with even sides, its edge repeated.

    simplejpeg 1.9 reads luma in pairs of rows and columns, and so, at an odd side, past the end of its memory.
    """
    height, width = plane.shape
    if height % 2 == 0 and width % 2 == 0:
        return plane
    whole = cv2.copyMakeBorder(plane, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return np.asarray(whole, np.uint8)[:height, :width]


def shrink(plane: Plane, width: int, height: int) -> Plane:
    """A plane at width x height, which is no more than it has.

    To less than half by INTER_AREA, to more by a small blur and a cubic: beside a Lanczos filter that is as near
    as INTER_AREA on photographs and a decibel nearer on drawings, in half the time.
    """
    scale = max(plane.shape[1] / width, plane.shape[0] / height)
    if scale == 1:
        return plane
    if scale >= 2:
        return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    side = _BLUR * (scale - 1)
    if side >= _LEAST_BLUR:
        # GaussianBlur is exact everywhere, unlike sepFilter2D; this is its sigma for taps of side, 1 - 2 side, side.
        sigma = (-0.5 / np.log(side / (1 - 2 * side))) ** 0.5
        plane = np.asarray(cv2.GaussianBlur(plane, (3, 3), float(sigma)), np.uint8)
    return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of two by two."""
    return np.asarray(cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def _turned(plane: Plane, turn: int) -> Plane:
    swapped, flip = _TURNS[turn]
    if swapped:
        plane = np.asarray(cv2.transpose(plane), np.uint8)
    return plane if flip is None else np.asarray(cv2.flip(plane, flip), np.uint8)
