"""Files of pictures: every encoding that the sample needs, sound and damaged."""

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmc4_builder.sample.draw import draw_scene
from mmc4_builder.sample.scenes import Scene
from mmc4_builder.sample.unrelated import draw_unrelated

NOT_FOUND = b"<!DOCTYPE html><html><head><title>Not found</title></head><body><h1>Not found</h1></body></html>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="300" height="200"><circle cx="90" cy="90" r="60"/></svg>'
XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/">
<plus:DataMining>http://ns.useplus.org/ldf/vocab/{datamining}</plus:DataMining>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""
TYPES: Mapping[str, str] = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "svg": "image/svg+xml",
    "tiff": "image/tiff",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a picture's URL answers with. Exactly the fields other than `url` settle the bytes."""

    url: str
    scene: Scene | None = None  # else one of `unrelated.VARIANTS`
    variant: str = "noise"
    seed: int = 0  # of the variant
    size: tuple[int, int] = (480, 320)
    encoding: str = "jpeg"  # a key of ENCODERS
    quality: int = 86
    damage: str = ""  # a key of DAMAGES
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()  # beyond Content-Type
    datamining: str = ""  # what the XMP of a JPEG says of its use; a name of PLUS's vocabulary


def content_type(picture: Picture) -> str:
    """As servers tell it: by the extension, so it is wrong where the encoding is."""
    extension = picture.url.rpartition(".")[2].lower().partition("?")[0]
    return TYPES.get("jpeg" if extension == "jpg" else extension, "application/octet-stream")


def payload(picture: Picture) -> bytes:
    """The body of the response."""
    if picture.status >= 300:
        return NOT_FOUND if picture.status >= 400 else b""
    whole = ENCODERS[picture.encoding](picture)
    if picture.datamining:
        whole = _with_xmp(whole, picture.datamining)
    return DAMAGES[picture.damage](whole) if picture.damage else whole


def pixels(picture: Picture) -> Image.Image:
    """The picture as it should be seen, RGB."""
    width, height = picture.size
    shrink = max(1, max(width, height) // 1000)  # huge ones are drawn small and blown up
    small = (width // shrink, height // shrink)
    if picture.scene is not None:
        drawn = draw_scene(picture.scene, *small)
    else:
        drawn = draw_unrelated(picture.variant, picture.seed, *small)
    return drawn if shrink == 1 else drawn.resize((width, height), Image.Resampling.NEAREST)


def _with_xmp(jpeg: bytes, datamining: str) -> bytes:
    """The JPEG with an XMP packet after its first marker (IPTC Photo Metadata Standard 2023.1, Data Mining)."""
    body = b"http://ns.adobe.com/xap/1.0/\x00" + XMP.format(datamining=datamining).encode()
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def _save(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def _jpeg(picture: Picture) -> bytes:
    return _save(pixels(picture), "JPEG", quality=picture.quality)


def _rotated(picture: Picture) -> bytes:
    """Stored lying on its side, with the EXIF orientation that sets it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return _save(pixels(picture).transpose(Image.Transpose.ROTATE_90), "JPEG", quality=picture.quality, exif=exif)


def _transparent(picture: Picture) -> bytes:
    """RGBA, with the outermost frame fully transparent."""
    width, height = picture.size
    alpha = Image.new("L", picture.size, 0)
    alpha.paste(255, (12, 12, width - 12, height - 12))
    drawn = pixels(picture)
    drawn.putalpha(alpha)
    return _save(drawn, "PNG")


def _deep_png(picture: Picture) -> bytes:
    """16 bits a channel, which Pillow cannot write: rows without filter, each byte twice."""
    width, height = picture.size
    rows = np.repeat(np.asarray(pixels(picture)).reshape(height, width * 3), 2, axis=1)
    body = np.pad(rows, ((0, 0), (1, 0))).tobytes()
    return png_file(width, height, depth=16, colour=2, body=body)


def _bomb(picture: Picture) -> bytes:
    """One bit a pixel, all black: a small file that asks for a lot of memory."""
    width, height = picture.size
    return png_file(width, height, depth=1, colour=0, body=bytes((width // 8 + 2) * height))


def png_file(width: int, height: int, *, depth: int, colour: int, body: bytes) -> bytes:
    """A PNG of raw filtered rows; `colour` is the PNG colour type."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(body, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _animated(picture: Picture) -> bytes:
    first = pixels(picture).quantize(32)
    return _save(first, "GIF", save_all=True, append_images=[first.transpose(Image.Transpose.FLIP_LEFT_RIGHT)], loop=0)


ENCODERS: Mapping[str, Callable[[Picture], bytes]] = {
    "jpeg": _jpeg,
    "png": lambda picture: _save(pixels(picture), "PNG"),
    "webp": lambda picture: _save(pixels(picture), "WEBP", quality=picture.quality),
    "tiff": lambda picture: _save(pixels(picture), "TIFF"),
    "svg": lambda picture: SVG,
    "gif": _animated,
    "rotated": _rotated,
    "cmyk": lambda picture: _save(pixels(picture).convert("CMYK"), "JPEG", quality=picture.quality),
    "progressive": lambda picture: _save(pixels(picture), "JPEG", quality=picture.quality, progressive=True),
    "grey": lambda picture: _save(pixels(picture).convert("L"), "JPEG", quality=picture.quality),
    "palette": lambda picture: _save(pixels(picture).quantize(64), "PNG"),
    "transparent": _transparent,
    "deep_png": _deep_png,
    "bomb": _bomb,
}


def _wreck(data: bytes) -> bytes:
    """Whole in length, broken inside: no valid Huffman table in a JPEG, a wrong checksum in a PNG."""
    at = data.find(b"\xff\xc4") + 5 if data.startswith(b"\xff\xd8") else data.find(b"IDAT") + 20
    return data[:at] + bytes(255 - byte for byte in data[at : at + 16]) + data[at + 16 :]


DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "corrupt": _wreck,
    "empty": lambda data: b"",
    "html": lambda data: NOT_FOUND,
}
