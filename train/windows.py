"""Which tokens of a page make a sequence.

A page is a row of units. Only a stretch of it is tokenized, somewhat longer than the window: tokenizing is most of the
cost, and pages can be of any length.
"""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate

from train.vocabulary import Vocabulary

# English has four to five characters a token. A stretch that turns out too short is doubled; only hostile pages, of
# endless dots or spaces, come to the last of these, and are treated as if the page ended there.
CHARS_PER_TOKEN = (6, 12, 24, 64)


@dataclass(frozen=True, slots=True)
class Unit:
    """A sentence, or a part of a very long one, with its pictures on one side of it."""

    text: str
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    @property
    def pictures(self) -> tuple[int, ...]:
        return self.before + self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Numbers in [0, 1) that choose a window: any of them, each as likely."""

    stretch: float
    picture: float
    start: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page to take a window of `room` tokens from, with at most `max_images` images."""

    units: Sequence[Unit]
    vocabulary: Vocabulary
    room: int
    max_images: int
    first_picture: int  # of the whole page: there is nothing to end before it
    lengths: Sequence[int]  # characters up to and with each unit


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """Units from `first` on, as tokens."""

    first: int
    ids: list[int]
    places: list[int]  # of <image> in ids
    pictures: list[int]


def page(units: Sequence[Unit], vocabulary: Vocabulary, room: int, max_images: int) -> Page:
    """`units` hold at least one picture; `room` is at least 3."""
    first_picture = next(picture for unit in units for picture in unit.pictures)
    lengths = list(accumulate(len(unit.text) + 1 for unit in units))
    return Page(
        units=units, vocabulary=vocabulary, room=room, max_images=max_images, first_picture=first_picture,
        lengths=lengths,
    )  # fmt: skip


def first_window(page: Page) -> tuple[list[int], tuple[int, ...]]:
    """The page's first tokens; where no image is among them, those from the first image on. Tokens and pictures."""
    shown = [picture for unit in page.units for picture in unit.pictures][: page.max_images]
    stretch = _grown(page, 0, 0, page.room, shown)
    if not _valid_starts(stretch, page.room, at_most=0):
        anchor = _units_with_pictures(page)[0]
        stretch = _grown(page, anchor, anchor, page.room, shown)
        return _cut(stretch, min(stretch.places[0], max(0, len(stretch.ids) - page.room)), page.room)
    return _cut(stretch, 0, page.room)


def random_window(page: Page, draws: Draws) -> tuple[list[int], tuple[int, ...]]:
    """Any window of the page that holds an image and a token after it. Tokens and pictures."""
    for first, anchor in _stretch_starts(page, draws):
        stretch = _grown(page, first, anchor, page.room, None)
        if spans := _valid_starts(stretch, page.room):
            break
    start = _nth(spans, draws.start)
    inside = [n for n, place in enumerate(stretch.places) if start <= place < start + page.room]
    if len(inside) > page.max_images:  # further images lose their tags, and the text around them is joined
        shown = stretch.pictures[: inside[0] + page.max_images]
        stretch = _grown(page, stretch.first, stretch.first, start + page.room, shown)
    return _cut(stretch, start, page.room)


def _stretch_starts(page: Page, draws: Draws) -> list[tuple[int, int]]:
    """(first unit, a unit that must be in it): a random stretch if it has a picture, else one with a random picture."""
    span = CHARS_PER_TOKEN[0] * page.room
    spare = page.lengths[-1] - span
    if spare <= 0:
        return [(0, len(page.units) - 1)]
    first = bisect_right(page.lengths, int(draws.stretch * (spare + 1)))
    with_pictures = _units_with_pictures(page)
    anchor = with_pictures[int(draws.picture * len(with_pictures))]
    begin = page.lengths[anchor] - len(page.units[anchor].text) - 1
    near = bisect_right(page.lengths, max(0, begin - int(draws.stretch * span / 2)))
    found = bisect_right(with_pictures, first - 1)
    if found < len(with_pictures) and page.lengths[with_pictures[found]] <= page.lengths[first] + span:
        return [(first, first), (near, anchor)]
    return [(near, anchor)]


def _units_with_pictures(page: Page) -> list[int]:
    return [number for number, unit in enumerate(page.units) if unit.before or unit.after]


def _grown(page: Page, first: int, anchor: int, tokens: int, shown: Collection[int] | None) -> _Stretch:
    """The stretch from unit `first` on: `tokens` of them if the page has so many, and what follows unit `anchor`."""
    begin = page.lengths[first - 1] if first else 0
    for chars in CHARS_PER_TOKEN:
        last = bisect_right(page.lengths, begin + chars * tokens)
        stop = min(len(page.units), max(last + 1, anchor + 2))
        stretch = _tokenized(page, first, stop, shown)
        if stop == len(page.units) or len(stretch.ids) >= tokens:
            return stretch
    stretch.ids.extend((page.vocabulary.end_of_chunk, page.vocabulary.end))
    return stretch


def _tokenized(page: Page, first: int, stop: int, shown: Collection[int] | None) -> _Stretch:
    """Text between two tags is tokenized as one string: tokenizers that put a space first do so after a tag alone."""
    texts: list[list[str]] = [[]]
    pictures: list[int] = []
    for unit in page.units[first:stop]:
        for picture in unit.before:
            if shown is None or picture in shown:
                pictures.append(picture)
                texts.append([])
        if unit.text:
            texts[-1].append(unit.text)
        for picture in unit.after:
            if shown is None or picture in shown:
                pictures.append(picture)
                texts.append([])
    vocabulary = page.vocabulary
    encoded = iter(vocabulary.encode([" ".join(parts) for parts in texts if parts]))
    ids: list[int] = next(encoded) if texts[0] else []
    places: list[int] = []
    for picture, parts in zip(pictures, texts[1:], strict=True):
        if picture != page.first_picture:
            ids.append(vocabulary.end_of_chunk)
        places.append(len(ids))
        ids.append(vocabulary.image)
        if parts:
            ids.extend(next(encoded))
    if stop == len(page.units):
        ids.extend((vocabulary.end_of_chunk, vocabulary.end))
    return _Stretch(first=first, ids=ids, places=places, pictures=pictures)


def _valid_starts(stretch: _Stretch, room: int, at_most: int | None = None) -> list[tuple[int, int]]:
    """Where a window can start so that it holds an image and a token after it: spans [from, to], apart, in order."""
    latest = max(0, len(stretch.ids) - room)
    if at_most is not None:
        latest = min(latest, at_most)
    spans: list[tuple[int, int]] = []
    free = 0
    for place in stretch.places:
        low, high = max(free, place - room + 2), min(place, latest)
        if low <= high and place + 1 < len(stretch.ids):
            spans.append((low, high))
            free = high + 1
    return spans


def _nth(spans: Sequence[tuple[int, int]], draw: float) -> int:
    """One of the numbers in the spans, each as likely."""
    number = int(draw * sum(high - low + 1 for low, high in spans))
    for low, high in spans:
        if number <= high - low:
            return low + number
        number -= high - low + 1
    raise AssertionError("a draw is below one")


def _cut(stretch: _Stretch, start: int, room: int) -> tuple[list[int], tuple[int, ...]]:
    stop = start + room
    pictures = tuple(
        picture for place, picture in zip(stretch.places, stretch.pictures, strict=True) if start <= place < stop
    )
    return stretch.ids[start:stop], pictures
