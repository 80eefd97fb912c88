"""Pictures at the encoder's size: what is cut, what is kept, and what is refused."""

import io
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pictures import encoded, exif, lying, png
from PIL import Image
from training_data import nearest_number, photograph, picture

from train import pictures
from train.config import ImagesConfig
from train.pictures import Look, decode, draw, fitted
from train.sequences import Skip

STILL = ImagesConfig(flip=0.0)


def halves(width: int, height: int) -> Image.Image:
    """Red on the left, blue on the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 255
    return Image.fromarray(pixels)


def decoded(data: bytes, side: int = 32, config: ImagesConfig = STILL, seed: int = 0) -> NDArray[np.uint8]:
    return np.ascontiguousarray(decode(data, side, config, random.Random(seed)))


@pytest.mark.parametrize("fit", ("crop", "pad", "squash"))
@pytest.mark.parametrize("size", ((64, 48), (33, 200), (3, 2), (900, 31), (32, 32)))
@pytest.mark.parametrize("kind", ("JPEG", "PNG", "WEBP"))
def test_every_shape_and_format_comes_out_the_same_size(fit: str, size: tuple[int, int], kind: str) -> None:
    config = ImagesConfig(fit=fit, flip=0.0)  # type: ignore[arg-type]
    found = decoded(picture(37, size=size, kind=kind), config=config)
    assert found.shape == (3, 32, 32) and found.dtype == np.uint8
    assert nearest_number(found) == 37


@pytest.mark.parametrize("mode", ("L", "P", "CMYK", "RGBA", "1"))
def test_every_mode_becomes_rgb(mode: str) -> None:
    kind = "JPEG" if mode in ("L", "CMYK") else "PNG"
    assert decoded(encoded(halves(64, 64).convert(mode), kind)).shape == (3, 32, 32)


def test_crop_keeps_the_middle_and_pad_keeps_all() -> None:
    data = encoded(halves(96, 32), "PNG")
    crop, pad, squash = (
        decoded(data, config=ImagesConfig(fit=fit, flip=0.0))  # type: ignore[arg-type]
        for fit in ("crop", "pad", "squash")
    )
    for found in (crop, pad, squash):
        assert (found[0, 16, :14] > 240).all() and (found[2, 16, 18:] > 240).all()
    edge = pad[:, 0, 0].astype(int)
    assert np.abs(edge - pad[:, 31, 31]).max() == 0 and np.abs(edge - (127, 0, 127)).max() <= 2  # the mean colour
    assert np.abs(pad[:, 8:12].mean((1, 2)) - (127, 0, 127)).max() < 20
    assert (squash[0, 0, :14] > 240).all()


def test_a_flip_is_a_mirror_image_and_its_chance_is_kept() -> None:
    data = encoded(halves(64, 64), "PNG")
    left = decoded(data)
    assert np.array_equal(decoded(data, config=ImagesConfig(flip=1.0)), left[:, :, ::-1])
    flipped = sum(draw(ImagesConfig(flip=0.3), random.Random(seed)).mirrored for seed in range(2000))
    assert 530 < flipped < 670


def test_orientation_is_what_people_see() -> None:
    """All eight of EXIF's: turned back, they are one picture."""
    upright = Image.fromarray(np.arange(48 * 48 * 3, dtype=np.uint32).reshape(48, 48, 3).astype(np.uint8))
    upright.paste((255, 0, 0), (0, 0, 24, 12))
    how = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    wanted = decoded(encoded(upright, "JPEG", quality=95), 48).astype(int)
    for value, stored in how.items():
        data = encoded(upright.transpose(stored), "JPEG", quality=95, exif=exif(value))
        assert np.abs(decoded(data, 48) - wanted).mean() < 4, value


def test_photographs_look_as_pillow_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    data = photograph(3)
    with Image.open(io.BytesIO(data)) as opened:
        peer = opened.resize((299, 224), Image.Resampling.BICUBIC).crop((37, 0, 261, 224))
    error = decoded(data, 224).transpose(1, 2, 0).astype(float) - np.asarray(peer)
    assert 10 * np.log10(255**2 / (error**2).mean()) > 33


def test_no_more_is_decoded_than_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = simplejpeg.decode_jpeg

    def spy(*args: object, **options: object) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = real(*args, **options)
        sizes.append(found.shape[:2])
        return found

    monkeypatch.setattr(simplejpeg, "decode_jpeg", spy)
    for side in (224, 67, 32):
        decoded(photograph(0), side)
    assert sizes == [(270, 360), (68, 90), (68, 90)]


@pytest.mark.parametrize(
    "data",
    (
        b"",
        b"not a picture",
        photograph(0)[:5000],
        photograph(0)[:100],
        png(50_000, 50_000, body=bytes(100)),
        png(64, 64, body=bytes(10)),
        lying(60_000, 60_000),
        lying(9000, 7200),
        b"\xff\xd8\xff" + bytes(1000),
        b"RIFF" + struct.pack("<I", 20) + b"WEBPVP8X" + bytes(8),
        b"GIF89a" + struct.pack("<HH", 60_000, 60_000),
        zlib.compress(bytes(100)),
    ),
    ids=("empty", "text", "cut", "cut early", "bomb", "no data", "lying bomb", "too many pixels", "zeros", "webp",
         "gif", "zip"),
)  # fmt: skip
def test_what_is_broken_is_a_bad_image(data: bytes) -> None:
    with pytest.raises(Skip) as caught:
        decoded(data)
    assert caught.value.reason == "bad_image"


@settings(max_examples=60)
@given(at=st.integers(2, 700), value=st.binary(min_size=1, max_size=4), kind=st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_damage_is_a_picture_or_a_bad_image(at: int, value: bytes, kind: str) -> None:
    data = bytearray(encoded(halves(80, 60), kind))
    data[at : at + len(value)] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about metadata
        try:
            assert decoded(bytes(data)).shape == (3, 32, 32)
        except Skip as skip:
            assert skip.reason == "bad_image"


def test_too_many_scans_are_refused_before_they_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    progressive = encoded(halves(64, 64), "JPEG", progressive=True)
    assert decoded(progressive).shape == (3, 32, 32)
    monkeypatch.setattr(pictures, "MAX_SCANS", 3)
    with pytest.raises(Skip):
        decoded(progressive)


GREY = np.full((8, 8, 3), 100, np.uint8)


@pytest.mark.parametrize(
    ("jitter", "colour", "wanted"),
    (
        ((1.0, 1.0, 1.0, 0.0), (200, 100, 50), (200, 100, 50)),
        ((0.5, 1.0, 1.0, 0.0), (200, 100, 50), (100, 50, 25)),
        ((1.4, 1.0, 1.0, 0.0), (200, 100, 50), (255, 140, 70)),
        ((1.0, 0.5, 1.0, 0.0), (100, 100, 100), (100, 100, 100)),
        ((1.0, 1.0, 0.0, 0.0), (200, 100, 50), (124, 124, 124)),  # 0.299 200 + 0.587 100 + 0.114 50
        ((1.0, 1.0, 1.0, 1 / 3), (200, 100, 50), (50, 200, 100)),
        ((1.0, 1.0, 1.3, 0.1), (90, 90, 90), (90, 90, 90)),
    ),
)
def test_jitter(
    jitter: tuple[float, float, float, float], colour: tuple[int, int, int], wanted: tuple[int, int, int]
) -> None:
    pixels = np.empty((16, 16, 3), np.uint8)
    pixels[:] = colour
    found = fitted(pixels, 16, STILL, Look(jitter=jitter))
    assert np.abs(found.reshape(3, -1).mean(1) - wanted).max() <= 1


def test_jitter_is_drawn_only_where_it_is_asked_for() -> None:
    looks = [draw(ImagesConfig(colour=True), random.Random(seed)) for seed in range(500)]
    assert 360 < sum(look.jitter is not None for look in looks) < 440
    assert all(draw(ImagesConfig(), random.Random(seed)).jitter is None for seed in range(50))
    data = photograph(1)
    assert not np.array_equal(decoded(data, config=ImagesConfig(flip=0, colour=True), seed=3), decoded(data))
