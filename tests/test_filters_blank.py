"""Pictures that show nothing go; drawings, screenshots and everything real stays."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from PIL import Image, ImageDraw

from filters.blank import MIN_DETAIL, reject
from mmc4_builder.image_evidence import detail
from mmc4_builder.images import ImageError, normalise
from mmc4_builder.phash import thumbnail

MANUALS = Path(__file__).parents[2] / "shared" / "corpora" / "manuals.warc.gz"


def measured(data: bytes) -> float:
    return detail(thumbnail(Image.open(io.BytesIO(data))))


def jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def noisy(level: float, deviation: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(level, deviation, (300, 400, 3))
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8))


def gradient(low: int) -> Image.Image:
    ramp = np.linspace(low, 255, 400)[None, :, None]
    return Image.fromarray(np.broadcast_to(ramp, (300, 400, 3)).astype(np.uint8))


def dotted(diameter: int) -> Image.Image:
    picture = Image.new("RGB", (800, 600), "white")
    ImageDraw.Draw(picture).ellipse((300, 200, 300 + diameter, 200 + diameter), fill=0)
    return picture


def drawn() -> Image.Image:
    picture = Image.new("RGB", (800, 600), "white")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((200, 150, 600, 450), outline=0)
    pen.line((400, 0, 400, 600), fill=0)
    return picture


def plot() -> Image.Image:
    picture = Image.new("RGB", (800, 600), "white")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((60, 40, 760, 560), outline=0)
    pen.line([(x, 300 + 200 * np.sin(x / 60)) for x in range(60, 760)], fill=(31, 119, 180))
    return picture


def editor(lines: int) -> Image.Image:
    picture = Image.new("RGB", (1000, 700), "white")
    for line in range(lines):
        ImageDraw.Draw(picture).text((20, 20 + 14 * line), "some lines of an editor window with text", fill=0)
    return picture


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGB", (400, 300), "black"),
        Image.new("RGB", (400, 300), "white"),
        Image.new("RGB", (400, 300), "red"),
        noisy(200, 4),
        noisy(5, 6),
        gradient(250),
        dotted(10),
        dotted(40),
    ],
    ids=["black", "white", "red", "noise", "dark noise", "faint gradient", "speck", "dot"],
)
def test_rejects(picture: Image.Image) -> None:
    assert reject(measured(jpeg(picture))) == "blank"


@pytest.mark.parametrize(
    "picture",
    [drawn(), plot(), editor(6), editor(40), gradient(240), gradient(0), dotted(80)],
    ids=["line drawing", "plot", "nearly empty editor", "editor", "soft gradient", "gradient", "moon"],
)
def test_keeps(picture: Image.Image) -> None:
    assert reject(measured(jpeg(picture))) is None


def test_the_limit_itself_is_kept() -> None:
    assert reject(MIN_DETAIL) is None
    assert reject(np.nextafter(MIN_DETAIL, 0)) == "blank"
    assert reject(0.5, min_detail=0.6) == "blank"
    assert reject(0.0, min_detail=0) is None


def real_pictures() -> Iterator[bytes]:
    with MANUALS.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
            if (record.http_headers.get("content-type") or "").startswith("image/"):
                yield record.reader.read()


@pytest.mark.skipif(not MANUALS.exists(), reason="the corpus of manuals is not here")
def test_keeps_every_real_picture() -> None:
    kept = 0
    for data in real_pictures():
        try:
            stored = normalise(data).data
        except ImageError:
            continue
        assert measured(stored) > 2 * MIN_DETAIL
        kept += 1
    assert kept > 200
