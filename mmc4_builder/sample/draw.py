"""Drawing: a scene as pixels, with Pillow's flat primitives and nothing else."""

import random
from collections.abc import Callable, Sequence
from functools import cache

from PIL import Image, ImageDraw

from mmc4_builder.sample.scenes import COLOURS, Scene, Thing
from mmc4_builder.sample.shapes import SHAPES

Colour = tuple[int, int, int]
INK, PAPER = (28, 28, 32), (246, 246, 242)
FIXED: dict[str, Colour] = {
    "ink": INK,
    "paper": PAPER,
    "leaf": (58, 140, 54),
    "gold": (232, 190, 60),
    "orange": (238, 140, 30),
}
SKIES: dict[str, tuple[Colour, Colour]] = {  # top, horizon
    "day": ((92, 164, 232), (206, 230, 248)),
    "dusk": ((96, 66, 128), (246, 168, 104)),
    "night": ((10, 14, 42), (42, 52, 98)),
}
GROUNDS: dict[str, Colour] = {
    "sea": (28, 96, 158),
    "meadow": (112, 178, 78),
    "desert": (222, 184, 116),
    "city": (120, 120, 126),
    "mountains": (118, 132, 104),
    "ice": (222, 236, 246),
    "forest": (66, 104, 58),
    "beach": (236, 216, 168),
}
DIMMED = {"day": 1.0, "dusk": 0.82, "night": 0.5}


def draw_scene(scene: Scene, width: int, height: int) -> Image.Image:
    """The scene as an RGB picture of `width` x `height` pixels; the same arguments give the same pixels."""
    rng = random.Random(scene.seed)
    picture = _sky(scene, width, height)
    canvas = ImageDraw.Draw(picture)
    horizon = int(height * rng.uniform(0.42, 0.72))
    _sun(canvas, scene, rng, width, horizon)
    _behind(canvas, scene, rng, width, horizon)
    _ground(canvas, scene, rng, width, horizon, height)
    side = rng.choice((-1, 1))
    if scene.other is not None:
        centre = (width * (0.5 - side * rng.uniform(0.24, 0.32)), height * rng.uniform(0.45, 0.72))
        _thing(canvas, scene.other, centre, rng.uniform(0.26, 0.36) * min(width, height), rng)
        centre = (width * (0.5 + side * rng.uniform(0.08, 0.2)), height * rng.uniform(0.46, 0.58))
    else:
        centre = (width * rng.uniform(0.36, 0.64), height * rng.uniform(0.42, 0.6))
    share = rng.uniform(0.58, 0.78) if scene.main.large else rng.uniform(0.36, 0.46)
    _thing(canvas, scene.main, centre, share * min(width, height), rng)
    _weather(canvas, scene, rng, width, height)
    return picture


def _sky(scene: Scene, width: int, height: int) -> Image.Image:
    top, low = SKIES[scene.time]
    if scene.weather != "clear":
        grey = (140, 146, 156) if scene.time == "day" else (70, 72, 86)
        top, low = _mix(top, grey, 0.65), _mix(low, grey, 0.5)
    column = Image.new("RGB", (1, 32))
    column.putdata([_mix(top, low, row / 31) for row in range(32)])
    return column.resize((width, height), Image.Resampling.BILINEAR)


def _sun(canvas: ImageDraw.ImageDraw, scene: Scene, rng: random.Random, width: int, horizon: int) -> None:
    x, y, radius = (
        rng.uniform(0.06, 0.94) * width,
        rng.uniform(0.08, 0.6) * horizon,
        rng.uniform(0.1, 0.2) * horizon,
    )
    if scene.weather == "clear":
        colour = {"day": (255, 240, 150), "dusk": (255, 120, 60), "night": (236, 236, 214)}[scene.time]
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    if scene.time == "night":
        for _ in range(24):
            x, y = rng.uniform(0, width), rng.uniform(0, horizon)
            canvas.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=(230, 230, 240))
    elif rng.random() < 0.6:
        for _ in range(rng.randrange(1, 4)):
            x, y, size = rng.uniform(0, width), rng.uniform(0, horizon * 0.6), rng.uniform(0.05, 0.14) * width
            canvas.ellipse((x - size, y - size * 0.35, x + size, y + size * 0.35), fill=(232, 232, 238))


def _behind(canvas: ImageDraw.ImageDraw, scene: Scene, rng: random.Random, width: int, horizon: int) -> None:
    """What stands on the horizon of a place: peaks, firs, towers of a town or low hills."""
    tint = _lit(GROUNDS[scene.place], scene.time)
    if scene.place in ("mountains", "ice"):
        shade = _mix(tint, (90, 96, 120), 0.5)
        for _ in range(rng.randrange(3, 6)):
            x, rise, half = (
                rng.uniform(0, width),
                rng.uniform(0.3, 0.8) * horizon,
                rng.uniform(0.14, 0.3) * width,
            )
            canvas.polygon([(x - half, horizon), (x, horizon - rise), (x + half, horizon)], fill=shade)
            cap = 0.28
            tip = [
                (x - half * cap, horizon - rise * (1 - cap)),
                (x, horizon - rise),
                (x + half * cap, horizon - rise * (1 - cap)),
            ]
            canvas.polygon(tip, fill=_lit((244, 248, 252), scene.time))
    elif scene.place == "forest":
        for _ in range(14):
            x, rise, half = (
                rng.uniform(0, width),
                rng.uniform(0.25, 0.6) * horizon,
                rng.uniform(0.04, 0.07) * width,
            )
            points = [(x - half, horizon), (x, horizon - rise), (x + half, horizon)]
            canvas.polygon(points, fill=_lit(_mix((24, 66, 40), (54, 100, 54), rng.random()), scene.time))
    elif scene.place == "city":
        x = rng.uniform(-0.05, 0.05) * width
        while x < width:
            step, rise = rng.uniform(0.06, 0.14) * width, rng.uniform(0.2, 0.75) * horizon
            canvas.rectangle(
                (x, horizon - rise, x + step, horizon),
                fill=_lit(_mix((84, 86, 100), (150, 138, 132), rng.random()), scene.time),
            )
            x += step * rng.uniform(1.0, 1.3)
    elif scene.place in ("meadow", "desert"):
        for _ in range(3):
            x, half, rise = (
                rng.uniform(0, width),
                rng.uniform(0.25, 0.5) * width,
                rng.uniform(0.1, 0.3) * horizon,
            )
            canvas.ellipse(
                (x - half, horizon - rise, x + half, horizon + rise),
                fill=_mix(tint, (40, 60, 70), rng.uniform(0.1, 0.25)),
            )
    elif scene.place == "beach":
        canvas.rectangle(
            (0, horizon - horizon * rng.uniform(0.14, 0.24), width, horizon),
            fill=_lit((58, 136, 186), scene.time),
        )


def _ground(
    canvas: ImageDraw.ImageDraw, scene: Scene, rng: random.Random, width: int, horizon: int, height: int
) -> None:
    tint = _lit(GROUNDS[scene.place], scene.time)
    canvas.rectangle((0, horizon, width, height), fill=tint)
    speck = _mix(tint, (255, 255, 255) if scene.place in ("sea", "meadow") else (60, 50, 50), 0.3)
    for _ in range(rng.randrange(20, 40)):
        x, y, size = rng.uniform(0, width), rng.uniform(horizon, height), rng.uniform(0.01, 0.05) * width
        canvas.line((x, y, x + size, y), fill=speck, width=max(1, height // 180))


def _thing(
    canvas: ImageDraw.ImageDraw, thing: Thing, centre: tuple[float, float], size: float, rng: random.Random
) -> None:
    own = tuple(min(255, max(0, part + rng.randrange(-14, 15))) for part in COLOURS[thing.colour])
    body = (own[0], own[1], own[2])
    tones = {
        **FIXED,
        "body": body,
        "dark": _mix(body, (0, 0, 0), 0.35),
        "light": _mix(body, (255, 255, 255), 0.4),
    }
    flip, left, top = rng.random() < 0.5, centre[0] - size / 2, centre[1] - size / 2
    paint: dict[str, Callable[..., None]] = {"B": canvas.rectangle, "O": canvas.ellipse, "P": canvas.polygon}
    for letter, tone, numbers in _parts(thing.kind):
        stroke, coords = (numbers[0], numbers[1:]) if letter == "L" else (0.0, numbers)
        points = [
            (left + size * (1 - x if flip else x), top + size * y)
            for x, y in zip(coords[::2], coords[1::2], strict=True)
        ]
        if letter == "L":
            canvas.line(points, fill=tones[tone], width=max(1, round(stroke * size)), joint="curve")
        else:
            paint[letter](points if letter == "P" else _corners(points), fill=tones[tone])


def _corners(points: Sequence[tuple[float, float]]) -> list[float]:
    (ax, ay), (bx, by) = points
    return [min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)]


@cache
def _parts(kind: str) -> tuple[tuple[str, str, tuple[float, ...]], ...]:
    fields = (part.split() for part in SHAPES[kind].split(";"))
    return tuple((letter, tone, tuple(map(float, numbers))) for letter, tone, *numbers in fields)


def _weather(canvas: ImageDraw.ImageDraw, scene: Scene, rng: random.Random, width: int, height: int) -> None:
    if scene.weather == "clear":
        return
    length = height / 16
    for _ in range(90):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        if scene.weather == "rain":
            canvas.line((x, y, x - length / 3, y + length), fill=(196, 212, 230), width=max(1, height // 200))
        else:
            r = height / 110
            canvas.ellipse((x - r, y - r, x + r, y + r), fill=(250, 250, 252))


def _mix(one: Colour, two: Colour, share: float) -> Colour:
    """`share` of `two` in `one`."""
    r, g, b = (round(a + (c - a) * share) for a, c in zip(one, two, strict=True))
    return (r, g, b)


def _lit(colour: Colour, time: str) -> Colour:
    return _mix((6, 10, 30), colour, DIMMED[time])
