"""Every mode of every format becomes the RGB that one would expect, and hostile files a reason."""

import io
import warnings

import numpy as np
import pytest
from pictures import chunk, encoded, exif, jpeg, picture, png, psnr, segment
from PIL import Image

from mmc4_builder.image_decode import HarmlessFault, decode, decode_thumbnail
from mmc4_builder.image_header import ImageError, read_header
from mmc4_builder.image_planes import steady_opencv


@pytest.fixture(autouse=True)
def steady():
    steady_opencv()


def pixels(data, max_side=800):
    return decode(data, read_header(data), max_side=max_side)[0]


GREY = np.linspace(0, 65535, 200).astype(np.uint16)[None, :].repeat(200, 0)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(GREY), GREY >> 8),
        (Image.fromarray((GREY > 30000).astype(np.uint8) * 255).convert("1"), (GREY > 30000) * 255),
        (Image.new("LA", (200, 200), (0, 0)), np.full((200, 200), 255)),
        (Image.new("LA", (200, 200), (90, 255)), np.full((200, 200), 90)),
        (Image.new("RGBA", (200, 200), (0, 0, 0, 0)), np.full((200, 200), 255)),
        (Image.new("RGBA", (200, 200), (0, 0, 0, 128)), np.full((200, 200), 127)),
        (Image.new("P", (200, 200), 0), np.zeros((200, 200))),
    ],
    ids=["16-bit", "1-bit", "LA clear", "LA", "RGBA clear", "RGBA half", "palette"],
)
def test_modes_of_png(image, expected):
    seen = pixels(encoded(image, "PNG"))
    assert seen.shape == (200, 200, 3)
    assert np.array_equal(seen, np.repeat(expected[..., None], 3, 2))


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_colour_of_a_palette_is_white(kind):
    image = Image.new("P", (200, 200), 0)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.paste(1, (0, 0, 100, 200))
    seen = pixels(encoded(image, kind, transparency=0))
    assert seen[100, 150].tolist() == [255, 255, 255]
    assert seen[100, 50].tolist() == [10, 20, 30]


def test_every_alpha_over_white_is_rounded_right():
    grid = np.arange(65536).reshape(256, 256)
    rgba = np.stack([grid // 256, 255 - grid // 256, grid // 256 // 2, grid % 256], -1).astype(np.uint8)
    colours, alpha = rgba[..., :3].astype(float), rgba[..., 3:].astype(float)
    exact = colours * alpha / 255 + 255 - alpha
    assert np.abs(pixels(encoded(Image.fromarray(rgba), "PNG")) - exact).max() <= 0.502  # 127.498 may round up


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("size", [(1500, 1001), (1001, 1500)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_pictures_of_more_than_a_strip(kind, size, mode):
    """Black on the left, and clear black on the right, which is white."""
    image = picture(*size).convert(mode)
    if mode == "RGBA":
        image.paste((0, 0, 0, 0), (0, size[1] // 2, size[0], size[1]))
    seen = pixels(encoded(image, kind, **({"lossless": True, "method": 0} if kind == "WEBP" else {})))
    expected = np.asarray(picture(*size)).copy()
    if mode == "RGBA":
        expected[size[1] // 2 :] = 255
    assert psnr(seen, expected) > (25 if kind == "GIF" else 98)


def test_ink_is_not_inverted():
    data = encoded(picture().convert("CMYK"), "JPEG", quality=95)
    assert read_header(data).colours in ("CMYK", "YCCK")
    assert psnr(pixels(data), picture()) > 30


@pytest.mark.parametrize("options", [{}, {"exif": exif(1)}, {"dpi": (72, 72)}], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "LA"])
def test_png_is_the_same_picture_by_either_decoder(mode, options):
    image = picture().quantize(64) if mode == "P" else picture().convert(mode)
    data = encoded(image, "PNG", **options)
    if mode in ("RGB", "RGBA") and not options:
        data += b"appended"
    assert np.array_equal(pixels(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_jpeg_comes_scaled_to_no_less_than_asked(scale):
    data = jpeg(810, 603)
    seen = pixels(data, max_side=810 // scale)
    assert seen.shape == (-(-603 // scale), -(-810 // scale), 3)
    assert psnr(seen, picture(810, 603).resize(seen.shape[1::-1], Image.Resampling.BOX)) > 25


def test_thumbnail_of_a_jpeg_is_luma_of_48_px_and_more():
    data = jpeg(800, 600)
    assert decode_thumbnail(data, read_header(data)).shape == (75, 100, 1)
    small = jpeg(100, 90)
    assert decode_thumbnail(small, read_header(small)).shape == (90, 100, 1)


def test_harmless_fault_is_told_apart_and_read_over():
    data = jpeg()[:-2] + b"\0\0" + b"\xff\xd9"
    with pytest.raises(HarmlessFault):
        decode_thumbnail(data, read_header(data))
    assert psnr(pixels(data), picture()) > 30


BAD_EXIF = b"Exif\0\0II*\0\xff\xff\xff\x7f"
WARNED = {
    "ink": encoded(picture().convert("CMYK"), "JPEG", exif=BAD_EXIF),
    "stray bytes": jpeg(exif=BAD_EXIF)[:-2] + b"\0\0\xff\xd9",
    "two pictures": segment(0xE2, b"MPF\0II*\0\x08\0\0\0" + bytes(40)).join(
        [jpeg()[:2], jpeg()[2:-2] + b"\0\0\xff\xd9"]
    ),
    "animation": encoded(picture().quantize(16), "PNG").replace(b"IDAT", b"IDAT", 1),
}
WARNED["animation"] = WARNED["animation"][:33] + chunk(b"acTL", bytes(8)) + WARNED["animation"][33:]
TEXT_BOMB = chunk(b"zTXt", b"Comment\0\0" + bytes(3))


@pytest.mark.parametrize("name", WARNED)
def test_what_is_not_the_picture_makes_nobody_warn(name):
    """Users may turn warnings into errors; Pillow warns of EXIF, of animations, of files in files."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert psnr(pixels(WARNED[name]), picture()) > 20


def test_a_broken_text_chunk_is_not_a_broken_picture():
    data = encoded(picture().quantize(16), "PNG")
    assert pixels(data[:33] + TEXT_BOMB + data[33:]).shape == (300, 400, 3)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(picture(), "PNG")[:500], "truncated"),
        (encoded(picture(), "GIF")[:1500], "truncated"),
        (encoded(picture(), "WEBP")[:-20], "truncated"),
        (encoded(picture().convert("CMYK"), "JPEG")[:-3000], "truncated"),
        (png(400, 300, body=bytes(1000)), "truncated"),
        (png(400, 300, body=(b"\x09" + bytes(1200)) * 300), "corrupt"),
        (png(400, 300, body=b"\0" * 10).replace(b"IDAT", b"IDAX"), "corrupt"),
    ],
    ids=["png", "gif", "webp", "ink", "png short", "png filter", "png without data"],
)
def test_reasons(data, expected):
    with pytest.raises(ImageError) as caught:
        pixels(data)
    assert caught.value.reason == expected


def test_cut_png_is_refused_without_a_word(capfd):
    """OpenCV's PNG library writes to stderr of what it finds; files that are cut off do not get there."""
    with pytest.raises(ImageError):
        pixels(encoded(picture(), "PNG")[:-100])
    assert capfd.readouterr().err == ""


def test_orientation_of_png_and_webp():
    for kind in ("PNG", "WEBP"):
        data = encoded(picture(), kind, exif=exif(6))
        assert decode(data, read_header(data), max_side=800)[1] == 6
    assert Image.open(io.BytesIO(jpeg())).size == (400, 300)
