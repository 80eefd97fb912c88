"""Shrinking: near what a Lanczos filter gives, turned right, and the same bytes on every processor."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from pictures import picture, pixels_of, psnr
from PIL import Image, ImageDraw

from mmc4_builder.image_planes import encode, shrink, steady_opencv, to_planes

ROOT = Path(__file__).parents[1]
LUMA = np.array([0.299, 0.587, 0.114])


def stored(image, width, height, *, turn=1, quality=95):
    steady_opencv()
    return encode(to_planes(np.asarray(image), width=width, height=height, turn=turn), quality=quality)


def drawing(width, height):
    """Thin lines and small squares: what aliases first."""
    image = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for at in range(0, max(width, height), 23):
        draw.line((0, at, width, at + 40), fill=(20, 20, 90), width=2)
        draw.rectangle((at, at // 2, at + 9, at // 2 + 9), fill=(200, 60, 20))
    return image


@pytest.mark.parametrize("size", [(400, 300), (401, 300), (400, 301), (401, 301), (1, 1), (3, 2), (2, 7)])
def test_not_shrunk_is_what_an_encoder_would_make_of_it(size):
    image = picture(*size)
    seen = pixels_of(stored(image, *size))
    reference = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(np.asarray(image), 95, "RGB", "420"))
    assert seen.shape == reference.shape
    assert psnr(seen, image) > psnr(reference, image) - 0.5


@pytest.mark.parametrize("size", [(620, 465), (701, 526), (900, 675), (1140, 855), (1200, 900), (1501, 1127)])
@pytest.mark.parametrize("make", [picture, drawing])
def test_shrunk_is_as_near_to_lanczos_as_a_box_filter(make, size):
    """A box filter is what INTER_AREA and most pipelines use. Colours are halved first and lose at hard edges."""
    image = make(*size)
    reference = image.resize((600, 450), Image.Resampling.LANCZOS)
    box = image.resize((600, 450), Image.Resampling.BOX)
    ours, peer = (pixels_of(stored(one, 600, 450)) for one in (image, box))
    assert psnr(ours @ LUMA, np.asarray(reference) @ LUMA) > psnr(peer @ LUMA, np.asarray(reference) @ LUMA) - 0.5
    assert psnr(ours, reference) > psnr(peer, reference) - 2.5


UNDO = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose numbers


@pytest.mark.parametrize("turn", UNDO)
@pytest.mark.parametrize("scale", [1, 2])
def test_turned_beforehand_the_other_way_the_picture_comes_out_upright(turn, scale):
    image = picture(400, 300)
    turned = image if turn == 1 else image.transpose(Image.Transpose(UNDO[turn]))
    seen = pixels_of(stored(turned, turned.width // scale, turned.height // scale, turn=turn))
    assert seen.shape == (300 // scale, 400 // scale, 3)
    assert psnr(seen, image.resize(seen.shape[1::-1], Image.Resampling.BOX)) > 30


@pytest.mark.parametrize("size", [(100, 80), (101, 81), (150, 120), (199, 159), (200, 160), (513, 401)])
def test_one_level_stays_that_level(size):
    plane = np.full(size[::-1], 77, np.uint8)
    shrunk = shrink(plane, 100, 80)
    assert shrunk.shape == (80, 100)
    assert set(np.unique(shrunk)) == {77}


@pytest.mark.parametrize("size", [(401, 300), (400, 301), (401, 301)])
def test_odd_sizes_do_not_depend_on_what_lies_behind_in_memory(size):
    prints = set()
    for filling in range(6):
        behind = [np.full(size[0] * size[1], 50 * filling, np.uint8) for _ in range(8)]
        del behind
        prints.add(stored(picture(*size), *size))
    assert len(prints) == 1


def test_nothing_but_the_picture_is_stored():
    assert stored(picture(), 400, 300)[:20] == b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"


SHRINK = """
import sys, hashlib, numpy as np
sys.path.insert(0, "tests")
from test_mmc4_builder_image_planes import drawing, stored
for size in ((700, 525), (1000, 750), (1900, 1425)):
    print(hashlib.sha256(stored(drawing(*size), 600, 450)).hexdigest())
"""


def test_same_bytes_on_lesser_processors():
    """OpenCV and its parts can be told to do without AVX2 and AVX-512."""
    prints = set()
    for less in (
        {},
        {"OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2"},
        {"OPENCV_IPP": "sse42"},
        {"OPENCV_IPP": "avx2"},
    ):
        ran = subprocess.run(
            [sys.executable, "-c", SHRINK],
            cwd=ROOT,
            env={**os.environ, **less},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        prints.add(ran.stdout)
    assert len(prints) == 1
