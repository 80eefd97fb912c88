"""Documents with pictures between their sentences, as sequences.

A page is a row of sentences and pictures: sentences joined by spaces, `<|endofchunk|><image>` for a picture, nothing
around these tags, no `<|endofchunk|>` before the page's first picture, `<|endofchunk|>` and eos at its end (paper
A.3.2; OpenFlamingo's data.py). A sequence is the page, or a window of it.

Where OpenFlamingo differs: it gives images in the order of image_info whatever the order of their tags, and turns
round those of one sentence; takes the best cell of an image's row for its sentence, not the stored assignment; drops a
page whose first image comes late; keeps white space at the ends of sentences; takes "<image>" in a text for a tag.
"""

import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train.config import InterleavedConfig
from train.sequences import Piece, Skip
from train.vocabulary import Vocabulary
from train.windows import Draws, Unit, first_window, page, random_window

LEAST_ROOM = 4  # a start token, an image, a token of its text, and one more
MAX_SENTENCE = 1024  # characters; a longer one is cut at spaces into several, so that a stretch is never one monster


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One entry of image_info whose file is there."""

    index: int  # in image_info
    matched: int  # sentence by the stored bipartite matching
    similarity: float  # to that sentence
    dom: int | None  # how many sentences the page has before it, where known
    size: int  # bytes of its file


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What of an MMC4 document makes a sequence."""

    sentences: tuple[str, ...]
    pictures: tuple[Picture, ...]  # in the order of image_info


def document(doc: Mapping[str, Any], present: Collection[int], sizes: Sequence[int]) -> Document:
    """A document of our shards, of OpenFlamingo's base64 flavour or of MMC4's zips; the assignment is the stored one.

    `present`: which entries of image_info have a file; `sizes`: bytes of each entry's file. Raises Skip: bad_document.
    """
    try:
        sentences = tuple(doc["text_list"])
        listed = doc["image_info"]
        pictures = tuple(
            _picture(entry, index, len(sentences), sizes[index])
            for index, entry in enumerate(listed)
            if index in present
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError):
        raise Skip("bad_document") from None
    if not isinstance(doc["text_list"], (list, tuple)) or not isinstance(listed, (list, tuple)):
        raise Skip("bad_document")
    if not all(isinstance(sentence, str) for sentence in sentences):
        raise Skip("bad_document")
    return Document(sentences=sentences, pictures=pictures)


def compose(
    doc: Document, vocabulary: Vocabulary, config: InterleavedConfig, rng: random.Random, room: int, key: str = ""
) -> Piece:
    """The page, or a window of it, in at most `room` tokens: it holds an image and a token after it.

    The piece fills the room or ends as the page ends. `window` "start": its first tokens, OpenFlamingo's way; if no
    image is in them, those from the first image on. "random": any of its windows that hold an image, each as likely
    (in a page much longer than a window: of a random stretch of it). The images are those inside the window, the
    first `max_images` of them: further ones are left out, and their text stays.
    Raises Skip: no_image, no_dom_order, single_image, no_room.
    """
    keep_single, after, look_ahead = (
        rng.random() < chance for chance in (config.keep_single, config.after, config.look_ahead)
    )
    draws = Draws(stretch=rng.random(), picture=rng.random(), start=rng.random())
    room = min(room, config.tokens)
    pictures = _chosen(doc, config)
    if len(pictures) == 1 and not keep_single:
        raise Skip("single_image")
    if room < LEAST_ROOM:
        raise Skip("no_room")
    start = () if vocabulary.start is None else (vocabulary.start,)
    whole = page(_units(doc.sentences, pictures, after), vocabulary, room - len(start), config.max_images)
    tokens, images = first_window(whole) if config.window == "start" else random_window(whole, draws)
    # Where packing alone made the window small, one image is no sign of a poor document.
    if len(images) == 1 and not keep_single and room == config.tokens:
        raise Skip("single_image")
    return Piece(key=key, tokens=(*start, *tokens), images=images, look_ahead=look_ahead)


def _picture(entry: Mapping[str, Any], index: int, sentences: int, size: int) -> Picture:
    """Raises ValueError, TypeError or KeyError for an entry that is not MMC4's."""
    matched, similarity, dom = entry["matched_text_index"], entry["matched_sim"], entry.get("dom_text_index")
    if type(matched) is not int or not 0 <= matched < sentences:
        raise ValueError(matched)
    if type(similarity) not in (int, float) or not math.isfinite(similarity):
        raise ValueError(similarity)
    if dom is not None and (type(dom) is not int or not 0 <= dom <= sentences):
        raise ValueError(dom)
    return Picture(index=index, matched=matched, similarity=float(similarity), dom=dom, size=size)


def _chosen(doc: Document, config: InterleavedConfig) -> list[tuple[int, int]]:
    """(sentence, entry of image_info) of the pictures that are good enough, by sentence, then by entry.

    In DOM order a picture's sentence is the one that follows it on the page. The threshold is for the matched
    sentence in both orders: it tells whether the picture has to do with the page.
    """
    good = [p for p in doc.pictures if p.similarity >= config.min_similarity and p.size >= config.min_bytes]
    if not good:
        raise Skip("no_image")
    if config.order == "clip":
        return sorted((p.matched, p.index) for p in good)
    placed = sorted((p.dom, p.index) for p in good if p.dom is not None)
    if not placed:
        raise Skip("no_dom_order")
    return placed


def _units(sentences: Sequence[str], pictures: Sequence[tuple[int, int]], after: bool) -> list[Unit]:
    """Empty sentences without pictures are left out. Pictures behind the last sentence (DOM order) come last."""
    listed: dict[int, list[int]] = {}
    for number, index in pictures:
        listed.setdefault(number, []).append(index)
    by_sentence = {number: tuple(indices) for number, indices in listed.items()}
    units: list[Unit] = []
    for number, sentence in enumerate(sentences):
        here = by_sentence.get(number, ())
        text = sentence.strip()
        if len(text) > MAX_SENTENCE:
            parts = list(_parts(text))
            last = parts.pop()
            units.append(Unit(parts[0], before=() if after else here))
            units.extend(Unit(part) for part in parts[1:])
            units.append(Unit(last, after=here if after else ()))
        elif text or here:
            units.append(Unit(text, after=here) if after else Unit(text, before=here))
    if len(sentences) in by_sentence:
        units.append(Unit("", before=by_sentence[len(sentences)]))
    return units


def _parts(text: str) -> Iterator[str]:
    """Pieces of at most MAX_SENTENCE characters, cut at spaces where there are any."""
    place = 0
    while len(text) - place > MAX_SENTENCE:
        cut = text.rfind(" ", place + 1, place + MAX_SENTENCE + 1)
        yield text[place : cut if cut > 0 else place + MAX_SENTENCE]
        place = cut + 1 if cut > 0 else place + MAX_SENTENCE
    yield text[place:]
