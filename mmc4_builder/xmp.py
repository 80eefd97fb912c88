"""plus:DataMining in a picture's XMP: what its owner says about mining and training (PLUS, IPTC 2023).

Most pictures hold no XMP. Only the containers' own chunks are walked, a microsecond or so for a JPEG, and the
packet is searched as text: it is written by many hands, and an XML parser would refuse what a person reads.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Final

PROHIBITED: Final = "DMI-PROHIBITED"  # all that start so refuse some training (PLUS LDF vocabulary)
MAX_PACKET: Final = 1 << 20  # bytes that are read of one packet, inflated
MAX_CHUNKS: Final = 10_000  # of one file: a PNG of 80 MB in libpng's pieces

_JPEG_XMP: Final = (b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0")
_PNG_XMP: Final = b"XML:com.adobe.xmp\0"
_NAME: Final = b":DataMining"  # whatever prefix the packet binds to http://ns.useplus.org/ldf/xmp/1.0/
_CODE = re.compile(rb"DMI-[A-Z]+(?:-[A-Z]+)*")
_WINDOW: Final = 300  # bytes after the name in which its value stands: as an attribute, text or rdf:resource
_MAX_NAMES: Final = 64


def data_mining(data: bytes) -> str | None:
    """The code, e.g. "DMI-PROHIBITED-AIMLTRAINING", a prohibition before any other; None where there is none."""
    codes = [code for packet in packets(data) for code in _codes(packet)]
    return next((code for code in codes if code.startswith(PROHIBITED)), codes[0] if codes else None)


def packets(data: bytes) -> Iterator[bytes]:
    """The XMP packets of a JPEG, PNG or WebP, as far as its chunks can be followed."""
    if data.startswith(b"\xff\xd8"):
        yield from _of_jpeg(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        yield from _of_png(data)
    elif data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8X" and data[20:21] and data[20] & 4:  # "has XMP"
        yield from _of_webp(data)


def _codes(packet: bytes) -> Iterator[str]:
    at = -1
    for _ in range(_MAX_NAMES):
        at = packet.find(_NAME, at + 1)
        if at < 0:
            return
        tag = packet[packet.rfind(b"<", max(at - _WINDOW, 0), at) + 1 : at]
        if tag.startswith(b"/"):  # a closing one: no value follows
            continue
        start = at + len(_NAME)
        value = packet[start : start + _WINDOW].partition(_NAME)[0]  # up to its closing tag
        if found := _CODE.search(value):
            yield found[0].decode("ascii")


def _of_jpeg(data: bytes) -> Iterator[bytes]:
    """APP1 segments that are XMP. They stand before the picture's data; a longer packet goes on in extensions."""
    at = 2
    for _ in range(MAX_CHUNKS):
        if data[at : at + 1] != b"\xff" or at + 4 > len(data):
            return
        marker, size = data[at + 1], (data[at + 2] << 8) | data[at + 3]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (0xD9, 0xDA) or size < 2:  # end of image, start of scan
            return
        if marker == 0xE1 and data.startswith(_JPEG_XMP, at + 4):
            yield data[at + 4 : at + 2 + size]
        at += 2 + size


def _of_png(data: bytes) -> Iterator[bytes]:
    at = 8
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            return
        (size,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"iTXt" and data.startswith(_PNG_XMP, at + 8):
            yield _international_text(data[at + 8 + len(_PNG_XMP) : at + 8 + size])
        at += 12 + size


def _international_text(chunk: bytes) -> bytes:
    """Text of an iTXt chunk, after its keyword: two flags, two strings ended by NUL, text, maybe deflated."""
    fields = chunk[2:].split(b"\0", 2)
    text = fields[2] if len(fields) == 3 else b""
    if chunk[:1] != b"\1":
        return text[:MAX_PACKET]
    try:
        return zlib.decompressobj().decompress(text, MAX_PACKET)
    except zlib.error:
        return b""


def _of_webp(data: bytes) -> Iterator[bytes]:
    at = 12
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            return
        (size,) = struct.unpack_from("<I", data, at + 4)
        if data[at : at + 4] == b"XMP ":
            yield data[at + 8 : at + 8 + min(size, MAX_PACKET)]
        at += 8 + size + (size & 1)
