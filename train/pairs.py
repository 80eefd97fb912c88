"""A picture or a video with its caption, as a sequence."""

import random

from train.sequences import Piece, Skip
from train.vocabulary import Vocabulary

# Characters a token that are looked at: captions can be of any length, and a token of English has four to five.
MAX_CHARS_PER_TOKEN = 64


def compose(
    key: str, caption: str | None, vocabulary: Vocabulary, tokens: int, leading_space: float, rng: random.Random
) -> Piece:
    """`<image>` caption `<|endofchunk|>` eos, in at most `tokens` tokens; before it the start token, if there is one.

    A long caption is cut so that the two ends stay. OpenFlamingo cuts the whole: a long caption has no end there.
    `leading_space`: chance of a space before the caption, so that the model takes prompts with and without one
    (paper B.1.2). A tokenizer that puts a space itself gets no second one.
    Raises Skip: no_caption; no_room where not even one token of the caption has a place.
    """
    spaced = rng.random() < leading_space and not vocabulary.adds_space
    text = (caption or "").strip()[: tokens * MAX_CHARS_PER_TOKEN].rstrip()
    ids = vocabulary.encode([" " + text if spaced else text])[0] if text else []
    if not ids:
        raise Skip("no_caption")
    head = [vocabulary.image] if vocabulary.start is None else [vocabulary.start, vocabulary.image]
    tail = [vocabulary.end_of_chunk, vocabulary.end]
    room = tokens - len(head) - len(tail)
    if room < 1:
        raise Skip("no_room")
    return Piece(key=key, tokens=(*head, *ids[:room], *tail), images=(0,))
