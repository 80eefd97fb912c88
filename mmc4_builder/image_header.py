"""What the first bytes of a picture say: its format, its size, its orientation. Nothing is decoded.

A server's Content-Type is never asked: only the bytes count. Sizes are checked on what is read here, so that
a file of a few kilobytes that claims a gigapixel costs a few microseconds.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import simplejpeg

Format = Literal["jpeg", "png", "webp", "gif"]
Reason = Literal[
    "empty",
    "too_many_bytes",
    "not_an_image",
    "unsupported_format",
    "too_many_pixels",
    "too_many_scans",
    "too_small",
    "bad_aspect",
    "truncated",
    "corrupt",
]

# Pictures that we know by name and do not take: few on the web, and each decoder is one more to trust.
_UNSUPPORTED = {
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"\0\0\1\0": "ico",
    b"8BPS": "psd",
    b"\xff\x0a": "jpeg-xl",
    b"\0\0\0\x0cJXL ": "jpeg-xl",
    b"\0\0\0\x0cjP  ": "jpeg-2000",
}
_SOF = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # start of frame
_SOS, _EOI, _APP1 = 0xDA, 0xD9, 0xE1
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length
_EXIF = b"Exif\0\0"
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # the others stand in entropy-coded data


class ImageError(Exception):
    """These bytes will not become a stored picture. `reason` is a counter's name, `detail` is for people."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason: Reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A picture before it is decoded. Width and height are as stored, before `orientation` turns it."""

    format: Format
    width: int
    height: int
    orientation: int = 1  # EXIF 1..8; JPEG only, the other formats keep it where Pillow finds it
    colours: str = ""  # JPEG only: YCbCr, Gray, RGB, CMYK, YCCK, or "" where simplejpeg does not know
    frame: int = 0  # JPEG only: the start-of-frame marker, 0xC0 baseline, 0xC2 progressive
    one_scan: bool = False  # JPEG only: sequential, and the first scan has all components: libjpeg takes no other


def sniff(data: bytes) -> Format:
    """The format by its magic bytes; raises `not_an_image` or `unsupported_format`."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        raise ImageError("unsupported_format", f"ISO media file of brand {data[8:12]!r}")
    for magic, name in _UNSUPPORTED.items():
        if data.startswith(magic):
            raise ImageError("unsupported_format", name)
    raise ImageError("not_an_image", f"starts with {data[:16]!r}")


def read_header(data: bytes) -> Header:
    """Format, size and orientation; ImageError where the header is cut off or makes no sense."""
    kind = sniff(data)
    if kind == "jpeg":
        return _jpeg(data)
    try:
        width, height = {"png": _png_size, "gif": _gif_size, "webp": _webp_size}[kind](data)
    except struct.error as error:
        raise ImageError("truncated", f"{kind} header ends after {len(data)} bytes") from error
    if width < 1 or height < 1:
        raise ImageError("corrupt", f"{kind} header says {width}x{height}")
    return Header(format=kind, width=width, height=height)


def orientation(exif: bytes) -> int:
    """EXIF orientation, 1 to 8; 1 (as it stands) for anything that cannot be read, as browsers do."""
    tiff = exif.removeprefix(_EXIF)
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(min(count, 512)):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * entry)
            if tag == 0x0112:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        return 1  # the directory points outside the block
    return 1


def count_scans(data: bytes) -> int:
    """Scans of a JPEG up to its end marker; a preview inside a segment or a file behind it do not count."""
    at, scans = 2, 0
    while found := _MARKER.search(data, at):
        marker, at = data[found.start() + 1], found.start() + 2
        if marker == _EOI:
            break
        scans += marker == _SOS
        if marker not in _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")
    return scans


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _webp_size(data: bytes) -> tuple[int, int]:
    """Canvas of a WebP file, from its first chunk (RFC 9649)."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        return 1 + low_w + (high_w << 16), 1 + low_h + (high_h << 16)
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _jpeg(data: bytes) -> Header:
    turn, frame, components, one_scan, width, height = 1, 0, 0, False, 0, 0
    for marker, start, end in _segments(data):
        if marker in _SOF and end - start >= 6 and not frame:
            frame, (height, width, components) = marker, struct.unpack_from(">HHB", data, start + 1)
        elif marker == _SOS:
            one_scan = frame in (0xC0, 0xC1) and data[start] == components
        elif marker == _APP1 and data.startswith(_EXIF, start) and turn == 1:
            turn = orientation(data[start:end])
    colours = ""
    try:
        # What the decoder believes counts, also where garbage between the segments ended the walk above.
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError) as error:  # KeyError for a subsampling that it cannot name
        if not frame:
            whole = data.endswith(b"\xff\xd9")
            raise ImageError("corrupt" if whole else "truncated", str(error)) from error
    if width < 1 or height < 1:
        raise ImageError("corrupt", f"jpeg header says {width}x{height}")
    return Header(
        format="jpeg",
        width=width,
        height=height,
        orientation=turn,
        colours=colours,
        frame=frame,
        one_scan=one_scan,
    )


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each JPEG segment's body, to the first scan's, or the first thing amiss."""
    at, size = 2, len(data)
    while at + 4 < size and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _EOI:
            return
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            yield marker, at + 4, min(at + 2 + length, size)
            if marker == _SOS:
                return
            at += 2 + max(length, 2)
