"""The file of a picture with nothing but the picture in it, losslessly.

Cameras write where a picture was taken and by whom; editors append previews and histories; servers append whole
files. None of it changes a pixel here: colour profiles count as such too, since `convert("RGB")` of every known
consumer of MMC4 ignores them. What is left also keeps decoders away from parsers that they need not run.
"""

import re
import struct
from dataclasses import dataclass

_EOI, _SOS, _COM, _APP0, _APP14 = 0xD9, 0xDA, 0xFE, 0xE0, 0xEE
_APPS = range(0xE0, 0xF0)
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length
# Where libjpeg sees the next marker, in headers and in entropy-coded data alike.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def clean_jpeg(data: bytes) -> bytes:
    """Application data, comments and all behind the end marker left out; the same object if there is none.

    JFIF's and Adobe's markers stay, cut to what decides on the colours. All else is copied bit for bit, faults
    too, save for stray bytes between segments, which decoders skip.
    """
    parts, at, jfif = [data[:2]], 2, False
    while found := _MARKER.search(data, at):
        start, marker = found.start(), data[found.end() - 1]
        at = start + 2
        if marker not in _ALONE and marker != _EOI:
            at = min(start + 2 + max(2, int.from_bytes(data[at : at + 2], "big")), len(data))
        segment = data[start:at]
        if marker in _APPS or marker == _COM:
            segment = b"" if jfif and marker == _APP0 else _colour_marker(segment)
            jfif |= segment[1:2] == b"\xe0"
        parts.append(segment)
        if marker == _EOI:
            break
        if marker == _SOS:
            after = _MARKER.search(data, at)
            end = after.start() if after else len(data)
            parts.append(data[at:end])
            at = end
    cleaned = b"".join(parts)
    return data if cleaned == data else cleaned


def _colour_marker(segment: bytes) -> bytes:
    """A JFIF marker without its thumbnail, an Adobe marker without what follows, or nothing."""
    marker, body = segment[1], segment[4:]
    if marker == _APP0 and body.startswith(b"JFIF\0") and len(body) >= 14:
        return b"\xff\xe0\0\x10" + body[:12] + b"\0\0"
    if marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
        return b"\xff\xee\0\x0e" + body[:12]
    return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanPng:
    """A PNG file of critical chunks and `tRNS`: its default picture, without animation, profile and text."""

    data: bytes
    exif: bytes  # body of the first eXIf chunk, or b""
    whole: bool  # every chunk to the end is there; nothing is said of what is in them
    transparent: bool  # it has a tRNS chunk


def clean_png(data: bytes) -> CleanPng:
    """The chunks that make the picture, with their checksums; the same object if there are no others."""
    view = memoryview(data)  # chunks of megabytes are not copied to be looked at
    parts, at, exif, kind, transparent = [view[:8]], 8, b"", b"", False
    while at + 12 <= len(data) and kind != b"IEND":
        (size,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 12 + size
        if kind in _PIXEL_CHUNKS:
            parts.append(view[at:end])
            transparent |= kind == b"tRNS"
        elif kind == b"eXIf" and not exif:
            exif = data[at + 8 : end - 4]
        at = end
    whole = kind == b"IEND" and at <= len(data)
    cleaned = data if sum(map(len, parts)) == len(data) else b"".join(parts)
    return CleanPng(data=cleaned, exif=exif, whole=whole, transparent=transparent)
