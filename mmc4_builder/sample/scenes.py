"""Scenes: what a picture of the sample shows, drawn by `draw` and described by `words`."""

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from mmc4_builder.sample.shapes import SHAPES

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (206, 38, 38),
    "orange": (240, 132, 24),
    "yellow": (246, 212, 44),
    "green": (40, 150, 62),
    "blue": (36, 84, 204),
    "purple": (126, 50, 164),
    "pink": (244, 134, 178),
    "brown": (126, 78, 40),
    "white": (244, 244, 240),
    "black": (30, 30, 34),
}
PLACES = ("sea", "meadow", "desert", "city", "mountains", "ice", "forest", "beach")
TIMES = ("day", "dusk", "night")
WEATHERS = ("clear", "clear", "clear", "rain", "snow")

LABELS: Mapping[str, str] = {"face": "face", "stripes": "nsfw_standin"}
"""Kinds that stand in for what real filters look for: smiling discs for faces, a striped sign for nudity."""

KINDS = tuple(kind for kind in SHAPES if kind not in LABELS)
HELD_OUT_ONE_IN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One object of a scene."""

    kind: str
    colour: str
    large: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A main thing, perhaps a lesser one, and their surroundings; `seed` settles what is left open."""

    main: Thing
    other: Thing | None
    place: str
    time: str
    weather: str
    seed: int

    @property
    def label(self) -> str:
        """'scene', or what the main thing stands in for."""
        return LABELS.get(self.main.kind, "scene")


def held_out(kind: str, colour: str, place: str) -> bool:
    """True for the quarter of (kind, colour, place) triples that the sample shows and training never sees."""
    return zlib.crc32(f"{kind} {colour} {place}".encode()) % HELD_OUT_ONE_IN == 0


def random_scene(rng: random.Random, *, for_sample: bool, kind: str = "") -> Scene:
    """A scene from the sample's side of the split or from the training side; `kind` fixes the main thing."""
    while True:
        main = _thing(rng, kind or rng.choice(KINDS))
        place = rng.choice(PLACES)
        if held_out(main.kind, main.colour, place) == for_sample:
            break
    others = [other for other in KINDS if other != main.kind]
    lesser = main.kind not in LABELS and rng.random() < 0.4
    return Scene(
        main=main,
        other=_thing(rng, rng.choice(others), large=False) if lesser else None,
        place=place,
        time=rng.choice(TIMES),
        weather=rng.choice(WEATHERS),
        seed=rng.randrange(2**32),
    )


def _thing(rng: random.Random, kind: str, *, large: bool | None = None) -> Thing:
    colours = (
        ("yellow", "pink", "orange") if kind == "face" else ("red", "orange") if kind == "stripes" else (*COLOURS,)
    )
    big = rng.random() < 0.65 if large is None else large
    return Thing(kind=kind, colour=rng.choice(colours), large=big or kind in LABELS)
