"""Sentences that describe a scene, in varied English."""

import random
from collections.abc import Mapping

from mmc4_builder.sample.scenes import Scene, Thing

NOUNS: Mapping[str, tuple[str, ...]] = {
    "boat": ("boat", "sailing boat", "little ship"),
    "lighthouse": ("lighthouse", "lighthouse tower"),
    "house": ("house", "cottage"),
    "castle": ("castle", "old fortress"),
    "tree": ("tree", "leafy tree"),
    "car": ("car", "motor car"),
    "bus": ("bus", "omnibus"),
    "train": ("train", "steam engine", "locomotive"),
    "bicycle": ("bicycle", "bike"),
    "balloon": ("balloon", "hot air balloon"),
    "kite": ("kite", "paper kite"),
    "apple": ("apple", "ripe apple"),
    "banana": ("banana", "curved banana"),
    "fish": ("fish", "round fish"),
    "bird": ("bird", "songbird"),
    "cat": ("cat", "kitten"),
    "butterfly": ("butterfly", "big butterfly"),
    "flower": ("flower", "blossom"),
    "mushroom": ("mushroom", "toadstool"),
    "umbrella": ("umbrella", "parasol"),
    "teapot": ("teapot", "tea kettle"),
    "drum": ("drum", "marching drum"),
    "rocket": ("rocket", "space rocket"),
    "windmill": ("windmill", "wind mill with four sails"),
    "tent": ("tent", "camping tent"),
    "snowman": ("snowman", "jolly snowman"),
    "guitar": ("guitar", "acoustic guitar"),
    "clock": ("clock", "wall clock"),
    "key": ("key", "iron key"),
    "turtle": ("turtle", "tortoise"),
    "face": ("smiling face", "grinning face"),
    "stripes": ("striped forbidden sign", "striped forbidden panel"),
}
VERBS: Mapping[str, tuple[str, ...]] = {
    "boat": ("drifts", "sails", "floats"),
    "car": ("waits", "is parked", "stops"),
    "bus": ("waits", "is parked", "stops"),
    "train": ("steams along", "halts", "rolls by"),
    "bicycle": ("leans", "stands", "is parked"),
    "balloon": ("floats", "hovers", "drifts"),
    "kite": ("dances", "hovers", "flies"),
    "fish": ("swims into view", "shows itself", "drifts"),
    "bird": ("sits", "sings", "rests"),
    "cat": ("sits", "waits", "rests"),
    "butterfly": ("flutters", "rests", "hovers"),
    "flower": ("blooms", "grows", "stands"),
    "mushroom": ("grows", "stands", "has sprung up"),
    "tree": ("grows", "stands", "rises"),
    "rocket": ("stands", "waits for its launch", "rises"),
    "turtle": ("crawls", "rests", "waits"),
    "face": ("looks out", "beams", "laughs"),
}
STILL = ("stands", "can be seen", "rests")
COLOUR_WORDS: Mapping[str, tuple[str, ...]] = {
    "red": ("red", "red", "scarlet"),
    "blue": ("blue", "blue", "deep blue"),
    "green": ("green", "green", "dark green"),
    "purple": ("purple", "purple", "violet"),
    "white": ("white", "white", "snow white"),
    "black": ("black", "black", "jet black"),
}
WHERE: Mapping[str, tuple[str, ...]] = {
    "sea": ("out at sea", "on the open water", "above the waves"),
    "meadow": ("on the green meadow", "in the grass", "among the fields"),
    "desert": ("in the desert", "between the dunes", "on the dry sand"),
    "city": ("in the city", "in front of the tall buildings", "downtown"),
    "mountains": ("below the mountains", "in the highlands", "before the stony peaks"),
    "ice": ("on the ice", "on the frozen plain", "in the frozen north"),
    "forest": ("in the forest", "at the edge of the woods", "among the firs"),
    "beach": ("on the beach", "by the shore", "along the sandy coast"),
}
WHEN: Mapping[str, tuple[str, ...]] = {
    "day": ("by day", "in the daylight", "at noon"),
    "dusk": ("at dusk", "at sunset", "in the evening light"),
    "night": ("at night", "under the stars", "after dark"),
}
WEATHER: Mapping[str, tuple[str, ...]] = {
    "rain": ("in the pouring rain", "while the rain falls", "in a heavy shower"),
    "snow": ("while snow is falling", "in a flurry of snow", "as snowflakes come down"),
}
OPENINGS = (
    "Here",
    "In this view",
    "In our picture",
    "To our delight,",
    "Once again",
    "Just as we hoped,",
    "As promised,",
)
SEEN = (
    "We came across",
    "You can see",
    "The camera caught",
    "Somebody painted",
    "My sister photographed",
    "I will not forget",
)

NEAR = ("beside", "next to", "not far from", "together with")


def describe(scene: Scene, rng: random.Random) -> str:
    """One sentence on what the picture shows; it names the main thing, and most of the rest."""
    details = [rng.choice(WHERE[scene.place])] if rng.random() < 0.8 else []
    if scene.weather in WEATHER and rng.random() < 0.7:
        details.append(rng.choice(WEATHER[scene.weather]))
    if rng.random() < 0.6 or not details:
        details.append(rng.choice(WHEN[scene.time]))
    subject, tail = noun_phrase(scene.main, rng), " ".join(details)
    beside = ""
    if scene.other is not None and rng.random() < 0.85:
        beside = f" {rng.choice(NEAR)} {noun_phrase(scene.other, rng)}"
    verb = rng.choice(VERBS.get(scene.main.kind, STILL))
    form = rng.randrange(4)
    if form == 0:
        return f"{rng.choice(SEEN)} {subject}{beside} {tail}."
    if form == 1:
        return f"{rng.choice(OPENINGS)} {subject} {verb} {tail}{beside}."
    if form == 2 and len(details) > 1:
        return _capital(f"{details[-1]}, {subject} {verb} {' '.join(details[:-1])}{beside}.")
    return _capital(f"{subject} {verb}{beside} {tail}.")


def noun_phrase(thing: Thing, rng: random.Random) -> str:
    """'a small red boat': the size is left out half of the time."""
    size = rng.choice(("large ", "big ") if thing.large else ("small ", "tiny ")) if rng.random() < 0.5 else ""
    colour = rng.choice(COLOUR_WORDS.get(thing.colour, (thing.colour,)))
    noun = rng.choice(NOUNS[thing.kind])
    if thing.kind == "snowman":  # only its scarf has a colour
        return f"{with_article(size + noun)} with {with_article(colour)} scarf"
    return with_article(f"{size}{colour} {noun}")


def with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
