"""Pictures that no sentence describes: noise, test patterns, page furniture and advertising."""

import random

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
VARIANTS = ("noise", "bars", "checks", "gradient", "screen", "advert", "flat", "speck")


def draw_unrelated(variant: str, seed: int, width: int, height: int) -> Image.Image:
    """One of `VARIANTS` as an RGB picture of `width` x `height` pixels."""
    rng = random.Random(seed)
    if variant == "noise":
        return _noise(rng, width, height)
    if variant == "gradient":
        corners = Image.new("RGB", (2, 2))
        corners.putdata([_any(rng) for _ in range(4)])
        return corners.resize((width, height), Image.Resampling.BILINEAR)
    coloured = variant in ("advert", "flat", "speck")
    picture = Image.new("RGB", (width, height), _any(rng) if coloured else (236, 238, 240))
    canvas = ImageDraw.Draw(picture)
    if variant == "bars":
        _bars(canvas, rng, width, height)
    elif variant == "checks":
        _checks(canvas, rng, width, height)
    elif variant == "screen":
        _screen(canvas, rng, width, height)
    elif variant == "speck":
        canvas.rectangle((width - 12, height - 12, width - 7, height - 7), fill=_any(rng))
    elif variant == "advert":
        _advert(canvas, rng, width, height)
    return picture


def _any(rng: random.Random) -> Colour:
    return (rng.randrange(256), rng.randrange(256), rng.randrange(256))


def _noise(rng: random.Random, width: int, height: int) -> Image.Image:
    grain = rng.choice((1, 4, 12))
    small = (max(1, width // grain), max(1, height // grain))
    return Image.frombytes("RGB", small, rng.randbytes(3 * small[0] * small[1])).resize(
        (width, height), Image.Resampling.NEAREST
    )


def _bars(canvas: ImageDraw.ImageDraw, rng: random.Random, width: int, height: int) -> None:
    count = rng.randrange(5, 12)
    for i in range(count):
        canvas.rectangle((width * i / count, 0, width * (i + 1) / count, height), fill=_any(rng))
    canvas.rectangle((0, height * 0.75, width, height), fill=_any(rng))


def _checks(canvas: ImageDraw.ImageDraw, rng: random.Random, width: int, height: int) -> None:
    step, colour = max(4, min(width, height) // rng.randrange(4, 12)), _any(rng)
    for row in range(0, height, step):
        for column in range(row // step % 2 * step, width, 2 * step):
            canvas.rectangle((column, row, column + step - 1, row + step - 1), fill=colour)


def _screen(canvas: ImageDraw.ImageDraw, rng: random.Random, width: int, height: int) -> None:
    """Grey lines of unreadable text beside a menu, as screenshots have them."""
    canvas.rectangle((0, 0, width, height * 0.1), fill=_any(rng))
    canvas.rectangle((0, height * 0.1, width * 0.22, height), fill=(210, 212, 220))
    line = max(3, height // 40)
    for y in range(int(height * 0.16), height, 3 * line):
        canvas.rectangle((width * 0.27, y, width * rng.uniform(0.5, 0.95), y + line), fill=(120, 124, 132))


def _advert(canvas: ImageDraw.ImageDraw, rng: random.Random, width: int, height: int) -> None:
    """A frame, two lines of capitals reduced to blocks, and a button."""
    canvas.rectangle((4, 4, width - 5, height - 5), outline=_any(rng), width=3)
    letter, ink = height / 6, _any(rng)
    for line in (0.18, 0.42):
        x = width * 0.08
        while x < width * rng.uniform(0.6, 0.92):
            canvas.rectangle((x, height * line, x + letter * 0.6, height * line + letter), fill=ink)
            x += letter * rng.choice((0.8, 0.8, 1.3))
    canvas.rounded_rectangle((width * 0.3, height * 0.72, width * 0.7, height * 0.9), radius=8, fill=_any(rng))
