"""Any picture that we take becomes RGB pixels: first frame, eight bits, transparency on white; or a reason.

JPEG by simplejpeg, which can scale while it decodes and be strict. Plain PNG by OpenCV, which takes a sixth less
time than Pillow and is as strict; whatever it does not take goes on to Pillow, which also says what is wrong.
The decoders get cleaned files where they would parse more than the picture: a fault in a text chunk or in EXIF
is not a fault of the picture.
"""

import io

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from mmc4_builder.image_clean import CleanPng, clean_jpeg, clean_png
from mmc4_builder.image_header import Header, ImageError, orientation

Pixels = NDArray[np.uint8]  # (height, width, 3) RGB, unless a docstring says otherwise

_JPEG_SCALES = (8, 4, 2)  # the fast ones: libjpeg's 5/8, 6/8 and 7/8 take longer than a full decode
_MIN_THUMBNAIL = 48  # px, shorter side of the decode that is hashed: the hash looks at 32x32
# Faults of the encoder that lose nothing, and that browsers pass over. All others lose part of the picture.
_HARMLESS = ("extraneous bytes before marker", "Invalid SOS parameters for sequential JPEG")
_CUT_SHORT = (
    "Premature end of JPEG file",
    "truncated",
    "Truncated",
    "unexpected end",
    "could not create decoder",
)
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


class HarmlessFault(Exception):
    """A JPEG with a fault that loses nothing."""


def decode(data: bytes, header: Header, *, max_side: int) -> tuple[Pixels, int]:
    """The picture and the EXIF turn that it still needs; a JPEG may come scaled, to no less than `max_side`."""
    if header.format == "png":
        return _png(data, header)
    if header.format != "jpeg":
        return _pillow(data, header)
    if header.colours not in ("CMYK", "YCCK", ""):
        long = max(header.width, header.height)
        scale = next((n for n in _JPEG_SCALES if long >= n * max_side), 1)
        try:
            return _jpeg(data, header, scale=scale, colours="RGB"), header.orientation
        except HarmlessFault:
            pass  # Pillow reads over it
    return _pillow(clean_jpeg(data), header)[0], header.orientation


def decode_thumbnail(data: bytes, header: Header) -> Pixels:
    """Luma of a JPEG, (height, width, 1), as small as its hash allows. All entropy coding is read and checked.

    Raises HarmlessFault too.
    """
    short = min(header.width, header.height)
    scale = next((n for n in _JPEG_SCALES if short >= n * _MIN_THUMBNAIL), 1)
    return _jpeg(data, header, scale=scale, colours="GRAY")


def _jpeg(data: bytes, header: Header, *, scale: int, colours: str) -> Pixels:
    """Pixels at exactly 1/scale; strict, so that data missing or damaged is an error and not grey blocks."""
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data,
            colorspace=colours,
            # Colours are repeated and not interpolated: what comes out has half the colours again, and the mean
            # of the repeated is exactly what was in the file.
            fastupsample=True,
            min_height=-(-header.height // scale),
            min_width=-(-header.width // scale),
            min_factor=scale,
            strict=True,
        )
    except MemoryError:
        raise
    except Exception as error:  # ValueError as a rule, and KeyError for colours that it cannot name
        if any(fault in str(error) for fault in _HARMLESS):
            raise HarmlessFault(str(error)) from error
        raise _broken(error) from error
    return pixels


def _png(data: bytes, header: Header) -> tuple[Pixels, int]:
    png = clean_png(data)
    pixels = _plain_png(png)
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        pixels, _ = _pillow(png.data, header)
    return pixels, orientation(png.exif)


def _plain_png(png: CleanPng) -> Pixels | None:
    """Eight bits of RGB or RGBA a pixel, not interlaced; None for all others and for all that is broken."""
    depth, kind, interlaced = png.data[24], png.data[25], png.data[28]
    if not png.whole or depth != 8 or interlaced or png.transparent or kind not in (2, 6):
        return None
    file = np.frombuffer(png.data, np.uint8)
    flags = cv2.IMREAD_COLOR_RGB if kind == 2 else cv2.IMREAD_UNCHANGED
    decoded: object = cv2.imdecode(file, flags)  # None where it fails, whatever its stubs say
    if not isinstance(decoded, np.ndarray):
        return None
    return decoded if kind == 2 else _on_white(decoded, to_rgb=cv2.COLOR_BGRA2RGB)


def _pillow(data: bytes, header: Header) -> tuple[Pixels, int]:
    """Pixels of any format, and the turn that WebP may ask for."""
    try:
        with Image.open(io.BytesIO(data), formats=[header.format.upper()]) as opened:
            if opened.size != (header.width, header.height):  # a GIF's frame may reach beyond its canvas
                raise ImageError("corrupt", f"frame {opened.size} outside {header.width}x{header.height}")
            opened.load()
            exif = opened.info.get("exif")
            return _in_strips(opened), orientation(exif) if isinstance(exif, bytes) else 1
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise a dozen types, SyntaxError and IndexError included
        raise _broken(error) from error


def _in_strips(opened: Image.Image) -> Pixels:
    """Pixels of a loaded picture, a million at a time, as every step on the way takes memory of its own."""
    width, height = opened.size
    rows = max(1, 1_000_000 // width)
    if height <= rows:
        return _flatten(opened)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        pixels[top:bottom] = _flatten(opened.crop((0, top, width, bottom)))
    return pixels


def _flatten(opened: Image.Image) -> Pixels:
    """Any mode to RGB: transparency on white, 16 bits to 8, ink to light."""
    if opened.mode.startswith("I") or opened.mode == "F":
        # Pillow clips where 16 bits become 8; the high byte is the picture.
        grey = (np.asarray(opened).clip(0, 65535).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if "transparency" in opened.info or opened.mode in _ALPHA_MODES:
        return _on_white(np.asarray(opened.convert("RGBA")), to_rgb=cv2.COLOR_RGBA2RGB)
    return np.asarray(opened.convert("RGB"))


def _on_white(four: Pixels, *, to_rgb: int) -> Pixels:
    """Pixels with alpha as their fourth byte, over white, in strips that stay in the processor's cache."""
    height, width = four.shape[:2]
    rows = max(1, 65_536 // width)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        pixels[top : top + rows] = cv2.cvtColor(_opaque(four[top : top + rows]), to_rgb)
    return pixels


def _opaque(four: Pixels) -> Pixels:
    """c a/255 + (255 - a), rounded, for colours c and alpha a."""
    words = four.view("<u4")[..., 0]
    if int(np.bitwise_and.reduce(words, axis=None)) >> 24 == 255:
        return four
    scaled = np.asarray(cv2.cvtColor(four, cv2.COLOR_RGBA2mRGBA), np.uint8)
    words = scaled.view("<u4")[..., 0]
    white = words >> 24
    np.subtract(255, white, out=white)
    white *= 0x010101  # into all three colours at once: the sums stay below 256
    white += words
    return white.view(np.uint8).reshape(four.shape)


def _broken(error: Exception) -> ImageError:
    """A decoder's complaint as a reason."""
    said = f"{type(error).__name__}: {error}"[:200]
    return ImageError("truncated" if any(sign in said for sign in _CUT_SHORT) else "corrupt", said)
