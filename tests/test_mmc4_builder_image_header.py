"""What the first bytes say: format, size, orientation, scans."""

import struct

import pytest
from pictures import encoded, exif, jpeg, lying, picture, png

from mmc4_builder.image_header import ImageError, count_scans, orientation, read_header, sniff

FORMATS = {"jpeg": jpeg(), "png": encoded(picture(), "PNG"), "gif": encoded(picture(), "GIF")}
FORMATS |= {
    "webp": encoded(picture(), "WEBP"),
    "webp lossless": encoded(picture(), "WEBP", lossless=True),
    "webp extended": encoded(picture(), "WEBP", exif=exif(1)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_format_and_size(name):
    header = read_header(FORMATS[name])
    assert (header.format, header.width, header.height) == (name.split()[0], 400, 300)
    assert sniff(FORMATS[name]) == header.format


@pytest.mark.parametrize(
    ("data", "colours", "frame", "one_scan"),
    [
        (jpeg(), "YCbCr", 0xC0, True),
        (jpeg(progressive=True), "YCbCr", 0xC2, False),
        (encoded(picture().convert("L"), "JPEG"), "Gray", 0xC0, True),
        (encoded(picture().convert("CMYK"), "JPEG"), "CMYK", 0xC0, True),
    ],
    ids=["baseline", "progressive", "grey", "ink"],
)
def test_jpeg_details(data, colours, frame, one_scan):
    header = read_header(data)
    assert (header.colours, header.frame, header.one_scan) == (colours, frame, one_scan)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", range(1, 9))
def test_orientation(value, order):
    assert orientation(exif(value, order)) == value
    assert read_header(jpeg(exif=exif(value, order))).orientation == value


@pytest.mark.parametrize("block", [b"", b"Exif\0\0", exif(0), exif(9), exif(6)[:20], b"MM\0*\xff\xff\xff\xff"])
def test_unreadable_orientation_means_as_it_stands(block):
    assert orientation(block) == 1


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        (b"GIF", "not_an_image"),
        (b"\0" * 64, "not_an_image"),
        (b"\0\0\0\x20ftypavif" + bytes(20), "unsupported_format"),
        (b"\0\0\0\x20ftypheic" + bytes(20), "unsupported_format"),
        (b"II*\0" + bytes(20), "unsupported_format"),
        (encoded(picture(), "PNG")[:20], "truncated"),
        (encoded(picture(), "WEBP")[:25], "truncated"),
        (jpeg()[:100], "truncated"),
        (png(0, 0), "corrupt"),
        (lying(0, 0), "corrupt"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value[:12]!r}{len(value)}",
)
def test_reasons(data, expected):
    with pytest.raises(ImageError) as caught:
        read_header(data)
    assert caught.value.reason == expected


def test_the_canvas_of_an_extended_webp():
    data = b"RIFF\xff\xff\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + struct.pack("<HBHB", 999, 0, 499, 0)
    header = read_header(data)
    assert (header.width, header.height) == (1000, 500)


def test_scans_of_previews_and_appended_files_do_not_count():
    preview = b"Exif\0\0" + b"\xff\xda" * 200
    assert count_scans(jpeg(progressive=True, exif=preview) + b"\xff\xda" * 200) == 10
    assert count_scans(jpeg()) == 1
