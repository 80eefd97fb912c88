"""The perceptual hash: copies stay near, other pictures stay far."""

import io
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mmc4_builder.phash import hamming, hamming_matrix, phash


def drawing(seed: int, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """Boxes and discs on a slope of grey, a different picture for each seed."""
    random = np.random.default_rng(seed)
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        x, y = random.integers(0, size[0]), random.integers(0, size[1])
        w, h = random.integers(size[0] // 12, size[0] // 2, 2)
        colour = tuple(int(c) for c in random.integers(0, 256, 3))
        (draw.ellipse if random.random() < 0.5 else draw.rectangle)((x, y, x + w, y + h), fill=colour)
    return image


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: jpeg(image, 85),
        lambda image: jpeg(image, 30),
        lambda image: image.resize((320, 240), Image.Resampling.LANCZOS),
        lambda image: jpeg(image.resize((320, 240), Image.Resampling.BICUBIC), 50),
        lambda image: image.resize((1280, 960), Image.Resampling.BICUBIC),
        lambda image: image.resize((700, 500), Image.Resampling.BILINEAR),  # aspect changed a little
        lambda image: image.point([min(255, 8 + value) for value in range(256)] * 3),
        lambda image: image.convert("L"),
    ],
    ids=["q85", "q30", "half", "half-q50", "double", "odd", "brighter", "grey"],
)
def test_copies_stay_within_five_bits(copy):
    far = [seed for seed in range(20) if hamming(phash(drawing(seed)), phash(copy(drawing(seed)))) > 5]
    assert len(far) <= 1, f"typically within 5 bits, but not {far}"


def test_different_pictures_are_far_apart():
    hashes = [phash(drawing(seed)) for seed in range(30)]
    assert min(hamming(a, b) for a, b in combinations(hashes, 2)) > 10


def test_shapes_that_mean_the_same_hash_the_same():
    image = drawing(3)
    grey = np.asarray(image.convert("L"))
    assert phash(grey) == phash(grey[..., None]) == phash(Image.fromarray(grey))
    assert phash(np.asarray(image)) == phash(image)
    assert hamming(phash(grey), phash(image)) <= 1  # luma before or after the blocks are averaged


@pytest.mark.parametrize("colour", [0, 77, 255])
def test_one_colour_is_the_same_at_any_size_and_is_not_another_colour(colour):
    sizes = [(1, 1), (3, 200), (31, 33), (5000, 40), (640, 480)]
    hashes = {phash(Image.new("L", size, colour)) for size in sizes}
    assert len(hashes) == 1
    assert hamming(hashes.pop(), phash(Image.new("L", (9, 9), colour ^ 1))) > 10


def test_flags_are_not_taken_for_each_other():
    """Upright stripes have no mixed frequencies at all: a plain DCT hash gives them all the same bits."""
    hashes = []
    for stripes in [(85, 255, 76), (100, 255, 76), (0, 200, 120), (30, 226, 100)]:
        flag = np.repeat(np.array(stripes, dtype=np.uint8), 100)[None, :].repeat(200, axis=0)
        hashes.append(phash(flag))
        assert phash(flag) == hashes[-1]
    assert min(hamming(a, b) for a, b in combinations(hashes, 2)) > 5


def test_mirror_image_is_another_picture():
    image = drawing(5)
    assert hamming(phash(image), phash(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))) > 10


def test_hash_is_pinned():
    """Hashes are stored and compared across runs, so the bits may not move."""
    wave = np.multiply.outer(np.arange(96) ** 2 % 251, np.arange(128) ** 2 % 241) % 256
    assert f"{phash(wave.astype(np.uint8)):016x}" == "0191548e74c9be9b"
    assert f"{phash(np.zeros((5, 5), np.uint8)):016x}" == "cc6d171260b47f4c"


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12))
def test_matrix_agrees_with_pairs(hashes):
    matrix = hamming_matrix(np.array(hashes, dtype=np.uint64))
    assert matrix.tolist() == [[hamming(a, b) for b in hashes] for a in hashes]
    assert matrix.shape == (len(hashes), len(hashes))
