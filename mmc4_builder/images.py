"""Bytes from the web become one kind of picture: a whole JPEG of at most 800 px that decodes as RGB.

Most JPEGs on the web are within the limit already. They are checked (every bit of entropy coding is read) and
hashed from a decode at 1/8 scale, and keep their image data bit for bit; what is not the picture (EXIF with its
place, previews, comments, colour profiles, appended files) is left out. Everything else becomes RGB and is
encoded anew: first frame of an animation, transparency on white, turned as its EXIF says. Colour profiles are
ignored there too, as the `convert("RGB")` of every known consumer of MMC4 ignores them.
"""

import hashlib
from dataclasses import dataclass

import cv2

from mmc4_builder.image_clean import clean_jpeg
from mmc4_builder.image_decode import HarmlessFault, decode, decode_thumbnail
from mmc4_builder.image_evidence import detail
from mmc4_builder.image_header import Header, ImageError, count_scans, read_header
from mmc4_builder.image_planes import encode, steady_opencv, to_planes
from mmc4_builder.phash import hash_thumbnail, thumbnail

__all__ = ["ImageError", "ImageRules", "StoredImage", "normalise"]

_MAX_SCANS = 100  # encoders write about 10; every further scan walks the whole picture once more
_KEPT_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: what every decoder reads
_KEPT_COLOURS = ("YCbCr", "Gray")
_MAX_KEPT_BYTES_PER_PIXEL = 3  # a JPEG larger than its pixels is mostly something else


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRules:
    """What is taken and what comes out. Sizes from MMC4 §3; caps are ours, against bombs.

    Measured peak, bytes for each pixel of the file: WebP 16, PNG 6 (8 with transparency), CMYK 8, GIF 5,
    progressive JPEG 3, baseline under 1 (6 below twice max_side). So 0.7 GB at the very worst, and a few
    dozen MB as a rule.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 40_000_000  # as stored, before decoding
    min_side: int = 150  # px, shorter side
    max_aspect: float = 2.0  # longer over shorter side; exactly 2 is kept
    max_side: int = 800  # px, longer side of what is stored
    quality: int = 90  # of the JPEGs that we encode, 4:2:0

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is {self.quality}; give 1 to 100")
        if self.max_side < 1 or self.min_side < 0 or not self.max_aspect >= 1:
            raise ValueError(f"max_side, min_side or max_aspect is out of range in {self}")
        if not 1 <= self.max_pixels <= 80_000_000:
            raise ValueError(f"max_pixels is {self.max_pixels}; give 1 to 80,000,000, Pillow warns above that")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """A picture as it is kept, and where it came from. Sizes in px as seen, after EXIF orientation."""

    data: bytes  # JPEG: RGB as YCbCr, or grey where the original JPEG was grey and is kept
    sha256: str  # hex, of data
    phash: int  # unsigned 64 bits
    detail: float  # share that stands out from its background, 0 to 1
    width: int
    height: int
    original_width: int
    original_height: int
    original_format: str  # jpeg, png, webp, gif
    original_sha256: str  # hex, of the bytes that were fetched


MMC4 = ImageRules()


def normalise(data: bytes, rules: ImageRules = MMC4) -> StoredImage:
    """The stored form of a fetched picture; raises ImageError with the reason for everything else."""
    header = _admit(data, rules)
    steady_opencv()
    try:
        return (_keepable(header, rules) and _keep(data, header)) or _remake(data, header, rules)
    except MemoryError as error:
        raise _no_memory(header) from error
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise _no_memory(header) from error
        raise


def _no_memory(header: Header) -> ImageError:
    return ImageError("too_many_pixels", f"no memory for {header.width}x{header.height}")


def _admit(data: bytes, rules: ImageRules) -> Header:
    """Everything that can be refused before decoding, the cheapest test first."""
    if not data:
        raise ImageError("empty")
    if len(data) > rules.max_bytes:
        raise ImageError("too_many_bytes", f"{len(data)} > {rules.max_bytes}")
    header = read_header(data)
    size = f"{header.width}x{header.height}"
    if header.width * header.height > rules.max_pixels:
        raise ImageError("too_many_pixels", f"{size} > {rules.max_pixels}")
    short, long = sorted((header.width, header.height))  # so EXIF orientation makes no difference
    if short < rules.min_side:
        raise ImageError("too_small", size)
    if long > rules.max_aspect * short:
        raise ImageError("bad_aspect", size)
    # A scan of 14 bytes can cost a walk over 40 million pixels.
    if header.format == "jpeg" and not header.one_scan and (scans := count_scans(data)) > _MAX_SCANS:
        raise ImageError("too_many_scans", f"{scans} > {_MAX_SCANS}")
    return header


def _keepable(header: Header, rules: ImageRules) -> bool:
    """Whether the image data can be stored as it is, if it turns out to be sound."""
    return (
        header.frame in _KEPT_FRAMES
        and header.colours in _KEPT_COLOURS
        and header.orientation == 1
        and max(header.width, header.height) <= rules.max_side
    )


def _keep(data: bytes, header: Header) -> StoredImage | None:
    """The picture with its own image data, or None where a harmless fault asks for clean ones."""
    stored = clean_jpeg(data)
    if len(stored) > _MAX_KEPT_BYTES_PER_PIXEL * header.width * header.height:
        return None
    try:
        grey = decode_thumbnail(stored, header)
    except HarmlessFault:
        return None
    thumb = thumbnail(grey)
    original = hashlib.sha256(data).hexdigest()
    return StoredImage(
        data=stored,
        sha256=original if stored is data else hashlib.sha256(stored).hexdigest(),
        phash=hash_thumbnail(thumb),
        detail=detail(thumb),
        width=header.width,
        height=header.height,
        original_width=header.width,
        original_height=header.height,
        original_format=header.format,
        original_sha256=original,
    )


def _remake(data: bytes, header: Header, rules: ImageRules) -> StoredImage:
    """The picture decoded, shrunk, turned and encoded anew."""
    pixels, turn = decode(data, header, max_side=rules.max_side)
    size = header.width, header.height
    as_seen = size if turn < 5 else size[::-1]
    long = max(*size, rules.max_side)
    width, height = (max(1, round(side * rules.max_side / long)) for side in size)
    planes = to_planes(pixels, width=width, height=height, turn=turn)
    stored = encode(planes, quality=rules.quality)
    thumb = thumbnail(planes.luma)
    return StoredImage(
        data=stored,
        sha256=hashlib.sha256(stored).hexdigest(),
        phash=hash_thumbnail(thumb),
        detail=detail(thumb),
        width=planes.luma.shape[1],
        height=planes.luma.shape[0],
        original_width=as_seen[0],
        original_height=as_seen[1],
        original_format=header.format,
        original_sha256=hashlib.sha256(data).hexdigest(),
    )
