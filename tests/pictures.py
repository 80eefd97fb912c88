"""Small pictures and broken files for the tests of the image modules."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def picture(width=400, height=300):
    """A smooth picture, red to the right and green to the bottom, with a blue mark in its top left corner."""
    red = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    green = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    pixels = np.stack([red, green, np.full_like(red, 60)], -1).astype(np.uint8)
    pixels[: height // 4, : width // 4] = (20, 20, 240)
    return Image.fromarray(pixels)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(width=400, height=300, **options):
    return encoded(picture(width, height), "JPEG", **{"quality": 90, **options})


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, *, depth=8, colour=2, body=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(body, 9)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def exif(value, order=">"):
    """An EXIF block that holds an orientation and nothing else."""
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, value, 0)
    head = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, 8)
    return b"Exif\0\0" + head + struct.pack(order + "H", 1) + entry + bytes(4)


def segment(marker, body):
    """A JPEG segment."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def lying(width, height, **options):
    """A JPEG whose header claims another size than its data fills."""
    data = bytearray(jpeg(**options))
    at = next(data.find(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in data)
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def pixels_of(data):
    """RGB of a stored picture as a consumer reads it, as integers that can be subtracted."""
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB")).astype(int)


def psnr(first, second):
    """Decibels of two arrays of bytes."""
    error = np.mean((np.asarray(first).astype(float) - np.asarray(second).astype(float)) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))
