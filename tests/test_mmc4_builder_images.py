"""What the image stage makes of every kind of picture, sound or hostile."""

import hashlib
import io
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, exif, jpeg, lying, picture, pixels_of, png, segment
from PIL import Image

from mmc4_builder.images import ImageError, ImageRules, normalise
from mmc4_builder.phash import hamming

ROOT = Path(__file__).parents[1]
CORPUS = ROOT.parent / "shared" / "corpora" / "manuals.warc.gz"


def decoded(stored):
    """The stored picture as a consumer reads it."""
    pixels = pixels_of(stored.data)
    assert pixels.shape == (stored.height, stored.width, 3)
    return pixels


def reason(data, **rules):
    with pytest.raises(ImageError) as caught:
        normalise(data, ImageRules(**rules))
    return caught.value.reason


KEPT = {
    "baseline": jpeg(),
    "progressive": jpeg(progressive=True),
    "grey": encoded(picture().convert("L"), "JPEG"),
    "4:4:4": jpeg(subsampling="4:4:4"),
    "at the limit": jpeg(800, 600),
    "300x150": jpeg(300, 150),
}


@pytest.mark.parametrize("name", KEPT)
def test_small_sound_jpeg_keeps_its_bytes(name):
    data = KEPT[name]
    stored = normalise(data)
    digest = hashlib.sha256(data).hexdigest()
    assert (stored.data, stored.sha256, stored.original_sha256) == (data, digest, digest)
    assert (stored.width, stored.height) == (stored.original_width, stored.original_height)
    assert stored.original_format == "jpeg"
    assert decoded(stored).shape == (stored.height, stored.width, 3)


SECRET = b"GPS 48.2082 N 16.3738 E"
CLEANED = {
    "upright exif": jpeg(exif=exif(1) + SECRET),
    "garbage exif": jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + SECRET),
    "colour profile": jpeg(icc_profile=SECRET * 100),
    "file appended": jpeg() + b"PK\3\4" + SECRET,
    "much else": jpeg() + SECRET + bytes(3 * 400 * 300),
    "scans in a preview": jpeg(exif=b"Exif\0\0" + b"\xff\xda" * 200) + b"\xff\xda" * 200,
}


@pytest.mark.parametrize("name", CLEANED)
def test_what_is_not_the_picture_is_left_out_of_a_kept_jpeg(name):
    data = CLEANED[name]
    stored = normalise(data)
    assert stored.data == jpeg()
    assert stored.sha256 == hashlib.sha256(jpeg()).hexdigest()
    assert stored.original_sha256 == hashlib.sha256(data).hexdigest()
    assert stored.phash == normalise(jpeg()).phash


REMADE = {
    "png": encoded(picture(), "PNG"),
    "webp": encoded(picture(), "WEBP", lossless=True),
    "webp lossy": encoded(picture(), "WEBP", quality=95),
    "webp with exif": encoded(picture(), "WEBP", lossless=True, exif=exif(1)),
    "webp animation": encoded(picture(), "WEBP", save_all=True, append_images=[picture().rotate(180)]),
    "png animation": encoded(picture(), "PNG", save_all=True, append_images=[picture().rotate(180)]),
    "png palette": encoded(picture().quantize(256), "PNG"),
    "gif": encoded(picture().quantize(256), "GIF"),
    "gif animation": encoded(picture(), "GIF", save_all=True, append_images=[picture().rotate(180)]),
    "jpeg in rgb": jpeg(keep_rgb=True, subsampling="4:4:4"),
    "jpeg of empty tables": (lambda data: data[:20] + segment(0xC4, b"") * 90_000 + data[20:])(jpeg()),
    "rgba, opaque": encoded(picture().convert("RGBA"), "PNG"),
}


@pytest.mark.parametrize("name", REMADE)
def test_everything_else_becomes_an_rgb_jpeg_of_the_same_picture(name):
    stored = normalise(REMADE[name])
    assert stored.data != REMADE[name]
    assert stored.sha256 == hashlib.sha256(stored.data).hexdigest()
    assert stored.original_sha256 == hashlib.sha256(REMADE[name]).hexdigest()
    assert stored.original_format == name.split()[0].replace("rgba,", "png")
    assert np.abs(decoded(stored) - np.asarray(picture()).astype(int)).mean() < 6
    assert hamming(stored.phash, normalise(jpeg()).phash) <= 5
    assert simplejpeg.decode_jpeg_header(stored.data)[2:] == ("YCbCr", "420")


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(value, kind):
    """Turned beforehand the other way, the picture comes out upright."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose numbers
    image = picture() if value == 1 else picture().transpose(Image.Transpose(undo[value]))
    stored = normalise(encoded(image, kind, exif=exif(value), quality=95))
    assert (stored.original_width, stored.original_height) == (400, 300)
    assert np.abs(decoded(stored) - np.asarray(picture()).astype(int)).mean() < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((201, 150), (200, 149)),
        ((256, 192), (200, 150)),
        ((400, 300), (200, 150)),
        ((300, 450), (133, 200)),
        ((499, 251), (200, 101)),
        ((75, 76), (75, 76)),
    ],
)
def test_longer_side_is_at_most(kind, size, expected):
    stored = normalise(encoded(picture(*size), kind), ImageRules(min_side=1, max_side=200))
    assert (stored.width, stored.height) == expected
    assert (stored.original_width, stored.original_height) == size
    assert np.abs(decoded(stored) - np.asarray(picture(*size).resize(expected)).astype(int)).mean() < 7


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_scaled_decode_looks_like_a_full_one(scale):
    size = 210 * scale, 160 * scale
    seen = decoded(normalise(jpeg(*size), ImageRules(max_side=200)))
    reference = np.asarray(picture(*size).resize(seen.shape[1::-1], Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(seen - reference).mean() < 2


def test_same_bytes_in_same_bytes_out():
    data = encoded(picture(1300, 900), "PNG")
    assert normalise(data) == normalise(data)


def test_remade_jpeg_carries_no_metadata():
    data = jpeg(900, 700, exif=exif(1), comment=b"a secret", icc_profile=b"profile" * 30)
    with Image.open(io.BytesIO(normalise(data).data)) as image:
        assert not {"exif", "comment", "icc_profile"} & set(image.info)


def test_rules_are_obeyed():
    assert normalise(jpeg(900, 900)).width == 800
    low, high = (normalise(jpeg(900, 900), ImageRules(quality=quality, max_side=300)) for quality in (30, 95))
    assert (low.width, high.width) == (300, 300)
    assert len(low.data) < len(high.data)


BROKEN = {
    "empty": b"",
    "not_an_image": b"<!DOCTYPE html><title>404</title>",
    "unsupported_format": b"BM" + bytes(100),
    "too_many_bytes": jpeg() + bytes(20_000_000),
    "too_many_pixels": png(50_000, 50_000, depth=1, colour=0),
    "too_many_scans": jpeg(progressive=True)[:-2] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 101 + b"\xff\xd9",
    "too_small": jpeg(149, 200),
    "bad_aspect": jpeg(301, 150),
    "truncated": jpeg()[:-3000],
    "corrupt": lying(3000, 2500),
}


@pytest.mark.parametrize("name", BROKEN)
def test_every_reason(name):
    assert reason(BROKEN[name]) == name


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (jpeg()[:-2], "truncated"),
        (jpeg(progressive=True)[:-2000], "truncated"),
        (jpeg(1600, 1200)[:-2000], "truncated"),
        (jpeg()[:2000] + b"\xff\xd9", "corrupt"),
        (lying(700, 700), "corrupt"),
        (lying(65500, 65500), "too_many_pixels"),
        (b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";", "too_many_pixels"),
        (b"GIF89a" + struct.pack("<HHBBB", 300, 300, 0, 0, 0) + b";", "corrupt"),
        (b"GIF89a\x2c\1\x2c\1\0\0\0" + b"\x2c\0\0\0\0\xff\xff\xff\xff\0\2\0;", "corrupt"),  # frame off canvas
        (b"RIFF\xff\xff\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0" + bytes(9), "too_many_pixels"),
        (b"RIFF\xff\xff\0\0WEBPVP8L\x0a\0\0\0\x2f\xff\xff\xff\x0f" + bytes(9), "too_many_pixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value[:12]!r}{len(value)}",
)
def test_hostile_and_broken(data, expected):
    assert reason(data) == expected


def test_harmless_fault_is_mended_by_encoding_anew():
    data = jpeg()[:-2] + b"\0\0" + b"\xff\xd9"
    stored = normalise(data)
    assert stored.data != data
    assert np.abs(decoded(stored) - np.asarray(picture()).astype(int)).mean() < 6


def test_error_says_what_and_survives_pickling():
    with pytest.raises(ImageError, match="too_small: 149x200") as caught:
        normalise(jpeg(149, 200))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.reason, again.detail) == ("too_small", "149x200")


@pytest.mark.parametrize("wrong", [{"quality": 0}, {"max_side": 0}, {"max_aspect": 0.5}, {"max_pixels": 10**9}])
def test_rules_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ImageRules(**wrong)


SEEDS = [jpeg(160, 160), jpeg(160, 160, progressive=True, exif=exif(6))]
SEEDS += [encoded(picture(160, 160), kind) for kind in ("PNG", "WEBP", "GIF")]


@settings(max_examples=150)
@given(st.sampled_from(SEEDS), st.data())
def test_any_damage_ends_in_a_picture_or_a_reason(seed, data):
    damaged = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.none(), st.integers(0, len(damaged))))
    try:
        stored = normalise(bytes(damaged[:end]))
    except ImageError as error:
        assert error.reason
    else:
        assert max(stored.width, stored.height) <= 800
        decoded(stored)


BOMBS = """
import resource, struct, sys, zlib
sys.path.insert(0, "tests")
from pictures import jpeg, lying, png
from mmc4_builder.images import ImageError, normalise
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
normalise(jpeg(900, 900))
before = peak()
rows = zlib.compressobj(9)
body = b"".join(rows.compress(bytes(6251)) for _ in range(50_000)) + rows.flush()
bomb = png(50_000, 50_000, depth=1, colour=0).replace(zlib.compress(b"", 9), body)
gif = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
gif += b"\\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\\2\\2\\x44\\1\\0;"
for data in (bomb, gif, lying(65500, 65500), lying(6000, 6000), lying(6000, 6000, progressive=True)):
    try:
        normalise(data)
    except ImageError as error:
        print(error.reason)
print(peak() - before)
"""


def test_bombs_cost_little_memory():
    """2.5 gigapixels of PNG, 4 of GIF, JPEGs whose header lies; in a process of its own, to see its peak."""
    ran = subprocess.run(
        [sys.executable, "-c", BOMBS], cwd=ROOT, capture_output=True, text=True, timeout=100, check=True
    )
    *reasons, peak = ran.stdout.split()
    assert reasons == ["too_many_pixels", "too_many_pixels", "too_many_pixels", "corrupt", "corrupt"]
    assert int(peak) < 400, "MiB more than a picture of 900x900"


@pytest.mark.skipif(not CORPUS.exists(), reason="no ../shared")
def test_real_pictures():
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    counts, near = {}, 0
    with CORPUS.open("rb") as stream:
        records = ArchiveIterator(stream, record_types=WarcRecordType.response)
        pictures = [r.reader.read() for r in records if "image/" in (r.http_headers.get("content-type") or "")]
    for data in pictures[::6]:
        try:
            stored = normalise(data)
        except ImageError as error:
            counts[error.reason] = counts.get(error.reason, 0) + 1
            continue
        with Image.open(io.BytesIO(stored.data)) as image:
            half = image.resize((max(150, image.width // 2), max(150, image.height // 2)))
        copy = normalise(encoded(half, "JPEG", quality=60), ImageRules(min_side=1, max_aspect=100))
        near += hamming(copy.phash, stored.phash) <= 5
        counts["kept"] = counts.get("kept", 0) + 1
    assert set(counts) == {"kept", "too_small", "bad_aspect"}
    assert near >= 0.85 * counts["kept"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_detail_tells_an_empty_picture(kind: str) -> None:
    """Kept as it is and made anew alike."""
    found = []
    for box in ((0, 0, 0, 0), (50, 50, 150, 150)):
        picture = Image.new("RGB", (200, 200), "white")
        picture.paste("black", box)
        stream = io.BytesIO()
        picture.save(stream, kind)
        found.append(normalise(stream.getvalue()).detail)
    assert found[0] == 0.0
    assert 0.2 < found[1] < 0.35
