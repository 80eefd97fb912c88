"""Cleaning leaves out what is not the picture, and not a bit of the picture."""

import io

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import chunk, encoded, exif, jpeg, picture, pixels_of, segment
from PIL import Image

from mmc4_builder.image_clean import clean_jpeg, clean_png

SECRET = b"GPS 48.2082 N 16.3738 E"
THUMBNAIL = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\x08\x08" + bytes(192))


def after_start(data, *segments):
    return data[:2] + b"".join(segments) + data[2:]


def before_second_scan(data, extra):
    at = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    return data[:at] + extra + data[at:]


PLAIN = jpeg()
PROGRESSIVE = jpeg(progressive=True)
DIRTY = {
    "exif": (jpeg(exif=exif(1) + SECRET), PLAIN),
    "comment": (jpeg(comment=SECRET), PLAIN),
    "profile": (jpeg(icc_profile=SECRET * 9000), PLAIN),
    "xmp": (after_start(PLAIN, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + SECRET)), PLAIN),
    "photoshop": (after_start(PLAIN, segment(0xED, b"Photoshop 3.0\0" + SECRET)), PLAIN),
    "thumbnail": (PLAIN.replace(PLAIN[2:20], THUMBNAIL), PLAIN),
    "second jfif": (PLAIN[:20] + segment(0xE0, b"JFXX\0\x10" + SECRET) + PLAIN[2:20] + PLAIN[20:], PLAIN),
    "stray bytes": (PLAIN[:20] + SECRET + PLAIN[20:], PLAIN),
    "fill bytes": (PLAIN[:20] + b"\xff\xff" + PLAIN[20:], PLAIN),
    "appended": (PLAIN + b"PK\3\4" + SECRET, PLAIN),
    "second picture": (PLAIN + jpeg(exif=exif(6)), PLAIN),
    "between scans": (before_second_scan(PROGRESSIVE, segment(0xFE, SECRET)), PROGRESSIVE),
    "end in comment": (after_start(PROGRESSIVE, segment(0xFE, b"\xff\xd9" + SECRET)), PROGRESSIVE),
}


@pytest.mark.parametrize("name", DIRTY)
def test_jpeg_without_all_that_is_not_the_picture(name):
    dirty, expected = DIRTY[name]
    cleaned = clean_jpeg(dirty)
    assert len(dirty) > len(expected)
    assert cleaned == expected
    assert SECRET not in cleaned
    assert np.array_equal(pixels_of(cleaned), pixels_of(dirty))


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        PROGRESSIVE,
        encoded(picture().convert("L"), "JPEG"),
        encoded(picture().convert("CMYK"), "JPEG"),  # its Adobe marker says that ink is inverted
        jpeg(keep_rgb=True, subsampling="4:4:4"),  # and this one that it is not YCbCr
        jpeg(restart_marker_blocks=3),
        jpeg(subsampling="4:2:2", optimize=True),
    ],
    ids=["baseline", "progressive", "grey", "ink", "rgb", "restarts", "4:2:2"],
)
def test_clean_jpeg_comes_back_as_the_same_object(data):
    assert clean_jpeg(data) is data


def test_adobe_marker_is_cut_to_what_decides_on_colours():
    plain = encoded(picture().convert("CMYK"), "JPEG")
    at = plain.index(b"\xff\xee")
    longer = plain[:at] + segment(0xEE, plain[at + 4 : at + 16] + SECRET) + plain[at + 16 :]
    assert clean_jpeg(longer) == plain


@pytest.mark.parametrize("end", [2, 3, 4, 21, 300, 2000, len(PLAIN) - 1])
def test_a_cut_jpeg_stays_cut(end):
    assert clean_jpeg(PLAIN[:end]) in (PLAIN[:end], PLAIN[: end - 1], PLAIN[:2])


@settings(max_examples=150)
@given(st.sampled_from([*DIRTY.values()]), st.data())
def test_whatever_decodes_decodes_to_the_same_pixels(pair, data):
    damaged = bytearray(pair[0])
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(2, len(damaged) - 1))] = data.draw(st.sampled_from([0, 0xFF, 0xD9, 0xE1, 7]))
    try:
        expected = simplejpeg.decode_jpeg(bytes(damaged), strict=True)
    except (ValueError, KeyError):
        return
    cleaned = clean_jpeg(bytes(damaged))
    assert np.array_equal(simplejpeg.decode_jpeg(cleaned, strict=True), expected)
    assert clean_jpeg(cleaned) is cleaned


PNG = encoded(picture(), "PNG")
EXTRA = [chunk(b"tEXt", b"Author\0" + SECRET), chunk(b"iCCP", b"x\0\0bad"), chunk(b"acTL", bytes(8))]


def test_png_without_all_that_is_not_the_picture():
    turned = exif(6).removeprefix(b"Exif\0\0")
    dirty = PNG[:33] + b"".join(EXTRA) + chunk(b"eXIf", turned) + PNG[33:] + b"appended"
    cleaned = clean_png(dirty)
    assert (cleaned.data, cleaned.exif, cleaned.whole, cleaned.transparent) == (PNG, turned, True, False)


def test_clean_png_comes_back_as_the_same_object():
    cleaned = clean_png(PNG)
    assert cleaned.data is PNG
    assert (cleaned.exif, cleaned.whole, cleaned.transparent) == (b"", True, False)


def test_transparent_colour_of_a_png_stays():
    data = encoded(picture().quantize(16), "PNG", transparency=3)
    cleaned = clean_png(data)
    assert (cleaned.data, cleaned.transparent) == (data, True)


@pytest.mark.parametrize("end", [8, 20, 33, 40, 500, len(PNG) - 13, len(PNG) - 1])
def test_a_cut_png_stays_cut_and_is_not_whole(end):
    cleaned = clean_png(PNG[:end])
    assert PNG.startswith(cleaned.data)
    assert not cleaned.whole


def test_a_cleaned_png_shows_the_same():
    dirty = PNG[:33] + EXTRA[0] + PNG[33:]
    with Image.open(io.BytesIO(clean_png(dirty).data)) as cleaned:
        assert np.array_equal(np.asarray(cleaned), np.asarray(picture()))
