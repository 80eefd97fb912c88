"""Documents as sequences: OpenFlamingo's own preprocessing gives the same (tests/data/openflamingo_text)."""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_tokens import SENTENCES, vocabulary
from transformers import PreTrainedTokenizerFast

from model.config import LanguageConfig
from train.config import InterleavedConfig
from train.interleaved import MAX_SENTENCE, compose, document
from train.labels import targets
from train.sequences import Piece, Skip
from train.vocabulary import Vocabulary, of

PEER = Path(__file__).parent / "data" / "openflamingo_text"
PLAIN = InterleavedConfig(tokens=4096, max_images=50, window="start", keep_single=1.0, min_similarity=-1.0)


def mmc4(sentences: list[str], places: list[int], **more: list[Any]) -> dict[str, Any]:
    """A document whose image i is matched to sentence places[i]; `more`: further values of each image."""
    info = [
        {"matched_text_index": place, "matched_sim": 0.3, **{name: values[n] for name, values in more.items()}}
        for n, place in enumerate(places)
    ]
    return {"text_list": sentences, "image_info": info}


def sequence(doc: dict[str, Any], config: InterleavedConfig = PLAIN, seed: int = 0, room: int | None = None) -> Piece:
    count = len(doc["image_info"])
    page = document(doc, range(count), [20_000] * count)
    return compose(page, vocabulary(), config, random.Random(seed), room or config.tokens, "k")


def shown(piece: Piece) -> str:
    """Tokens as text: [] for an image, | for an end of chunk, . for the end."""
    made = vocabulary()
    marks = {made.image: "[]", made.end_of_chunk: "|", made.end: "."}
    parts: list[Any] = [[]]
    for token in piece.tokens:
        parts.extend([marks[token], []]) if token in marks else parts[-1].append(token)
    return "".join(part if isinstance(part, str) else made.decode(part) for part in parts)


def reason(call: Callable[[], object]) -> str:
    with pytest.raises(Skip) as skip:
        call()
    return skip.value.reason


# OpenFlamingo


@cache
def peer_vocabulary() -> Vocabulary:
    tokens = PreTrainedTokenizerFast(tokenizer_file=str(PEER / "tokenizer.json"), eos_token="<|endoftext|>")
    return of(tokens, LanguageConfig(name=None, layers=1, width=8, vocab_size=len(tokens), new_tokens=3))


@pytest.mark.parametrize("number", range(13))
def test_openflamingo_makes_the_same(number: int) -> None:
    """Intended differences lie outside of these cases: see the module's docstring."""
    case = json.loads((PEER / "cases.json").read_text())["documents"][number]
    config = InterleavedConfig(tokens=256, max_images=6, min_bytes=11_000, window="start", keep_single=1.0)
    present = [index for index, size in enumerate(case["sizes"]) if size]
    page, made = document(case["doc"], present, case["sizes"]), peer_vocabulary()
    if "refused" in case:
        assert reason(lambda: compose(page, made, config, random.Random(0), 256)) == "no_image"
        return
    found = compose(page, made, config, random.Random(0), 256)
    assert list(found.tokens) == case["ids"]
    ids = torch.tensor([found.tokens])
    assert targets(ids, torch.ones_like(ids), made, "openflamingo", interleaved=True)[0].tolist() == case["labels"]
    assert len(found.images) == found.tokens.count(made.image)


# Where things stand

TABLE: list[tuple[dict[str, Any], dict[str, Any], str, tuple[int, ...]]] = [
    (mmc4(["a", "b", "c"], [0, 2]), {}, "[]a b|[]c|.", (0, 1)),
    (mmc4(["a", "b", "c"], [1]), {}, "a[]b c|.", (0,)),
    (mmc4(["a", "b", "c"], [2, 0]), {}, "[]a b|[]c|.", (1, 0)),  # order of tags, not of image_info
    (mmc4(["a", "b"], [1, 1, 0]), {}, "[]a|[]|[]b|.", (2, 0, 1)),  # of one sentence: as stored
    (mmc4(["a", "b", "c"], [0, 2]), {"after": 1.0}, "a[]b c|[]|.", (0, 1)),
    (mmc4(["a", "b", "c"], [0, 2], dom_text_index=[1, 3]), {"order": "dom"}, "a[]b c|[]|.", (0, 1)),
    (mmc4(["a", "b", "c"], [0, 2], dom_text_index=[None, 1]), {"order": "dom"}, "a[]b c|.", (1,)),
    (mmc4([" a ", "", "\n", "b\t"], [2]), {}, "a[]b|.", (0,)),  # no white space around tags
    (mmc4(["a", "b", "c"], [0, 1, 2]), {"max_images": 2}, "[]a|[]b c|.", (0, 1)),
    (mmc4(["a <image> b", "c <|endoftext|>"], [0]), {}, "[]a <image> b c <|endoftext|>|.", (0,)),
    (mmc4(["a", "b"], [0, 1], matched_sim=[0.2, 0.24]), {"min_similarity": 0.24}, "a[]b|.", (1,)),
]


@pytest.mark.parametrize(("doc", "change", "text", "images"), TABLE)
def test_by_hand(doc: dict[str, Any], change: dict[str, Any], text: str, images: tuple[int, ...]) -> None:
    found = sequence(doc, replace(PLAIN, **change))
    assert (shown(found), found.images, found.key) == (text, images, "k")


def test_pictures_that_are_missing_or_small() -> None:
    doc = mmc4(["a", "b", "c"], [0, 1, 2])
    page = document(doc, {0, 2}, [10, 10, 11])
    found = compose(page, vocabulary(), replace(PLAIN, min_bytes=11), random.Random(0), 64)
    assert (shown(found), found.images) == ("a b[]c|.", (2,))
    assert reason(lambda: compose(page, vocabulary(), replace(PLAIN, min_bytes=12), random.Random(0), 64)) == "no_image"


def test_dom_order_that_nobody_stored() -> None:
    assert reason(lambda: sequence(mmc4(["a"], [0]), replace(PLAIN, order="dom"))) == "no_dom_order"


def test_a_start_token_comes_first() -> None:
    made = replace(vocabulary(), start=7)
    page = document(mmc4(["a", "b"] * 50, [1]), [0], [1])
    found = compose(page, made, replace(PLAIN, window="random"), random.Random(1), 16)
    assert (len(found.tokens), found.tokens[0]) == (16, 7)


# Chances


def share(
    config: InterleavedConfig, doc: dict[str, Any], of_what: Callable[[Piece], bool]
) -> tuple[float, Counter[str]]:
    found, skipped = 0, Counter[str]()
    for seed in range(200):
        try:
            found += of_what(sequence(doc, config, seed))
        except Skip as skip:
            skipped[skip.reason] += 1
    return found / 200, skipped


def test_documents_with_one_image_are_thinned() -> None:
    kept, skipped = share(replace(PLAIN, keep_single=0.25), mmc4(["a", "b"], [1]), lambda piece: True)
    assert abs(kept - 0.25) < 0.1
    assert set(skipped) == {"single_image"}
    kept, skipped = share(replace(PLAIN, keep_single=0.0), mmc4(["a", "b"], [0, 1]), lambda piece: True)
    assert (kept, skipped) == (1.0, {})


def test_a_window_with_one_image_is_thinned_but_not_one_that_packing_cut() -> None:
    doc, config = mmc4(["a", *SENTENCES, "b"], [0, 7]), replace(PLAIN, tokens=16, keep_single=0.0)
    assert reason(lambda: sequence(doc, config)) == "single_image"
    assert sequence(doc, replace(config, tokens=256), room=16).images == (0,)


def test_before_or_after_and_look_ahead_are_drawn_for_each_document() -> None:
    doc = mmc4(["a", "b"], [0, 1])
    after, _ = share(replace(PLAIN, after=0.5), doc, lambda piece: shown(piece) == "a[]b|[]|.")
    before, _ = share(replace(PLAIN, after=0.5), doc, lambda piece: shown(piece) == "[]a|[]b|.")
    ahead, _ = share(replace(PLAIN, look_ahead=0.5), doc, lambda piece: piece.look_ahead)
    assert after + before == 1.0
    assert abs(after - 0.5) < 0.1
    assert abs(ahead - 0.5) < 0.1


# Windows

PAGE = mmc4([SENTENCES[n % 6] for n in range(40)], [2, 9, 20, 20, 33])


def whole(doc: dict[str, Any], after: float = 0.0) -> tuple[int, ...]:
    return sequence(doc, replace(PLAIN, after=after)).tokens


@pytest.mark.parametrize("after", [0.0, 1.0])
def test_windows_are_parts_of_the_page(after: float) -> None:
    made, page, starts = vocabulary(), whole(PAGE, after), Counter[int]()
    config = replace(PLAIN, tokens=64, window="random", after=after)
    for seed in range(200):
        found = sequence(PAGE, config, seed)
        places = [n for n in range(len(page)) if page[n : n + 64] == found.tokens]
        assert places
        starts.update(places)
        tags = [n for n, token in enumerate(found.tokens) if token == made.image]
        assert 0 <= tags[0] < 63
        assert len(tags) == len(found.images)
    assert len(starts) > 90  # not the same few
    images = Counter(index for seed in range(200) for index in sequence(PAGE, config, seed).images)
    assert min(images[n] for n in range(5)) > 12


def test_every_valid_window_of_a_short_page_is_as_likely() -> None:
    doc = mmc4(["a b c d e f g h", "i j k l"], [1])
    page = whole(doc)
    config = replace(PLAIN, tokens=len(page) - 4, window="random")
    starts = Counter(page.index(sequence(doc, config, seed).tokens[0]) for seed in range(500))
    assert sorted(starts) == [0, 1, 2, 3, 4]
    assert min(starts.values()) > 70


def test_a_page_that_fits_is_whole() -> None:
    assert all(sequence(PAGE, replace(PLAIN, window="random"), seed).tokens == whole(PAGE) for seed in range(5))


def test_the_first_tokens_or_those_from_the_first_image_on() -> None:
    page, made = whole(PAGE), vocabulary()
    first = page.index(made.image)
    assert sequence(PAGE, replace(PLAIN, tokens=first + 2)).tokens == page[: first + 2]
    assert sequence(PAGE, replace(PLAIN, tokens=first + 1)).tokens == page[first : 2 * first + 1]
    late = mmc4([SENTENCES[n % 6] for n in range(40)], [39])
    page = whole(late)
    assert sequence(late, replace(PLAIN, tokens=64)).tokens == page[page.index(made.image) :]


def test_further_images_of_a_window_lose_their_tags_and_text_stays() -> None:
    doc = mmc4(["a", "b", "c", "d", "e"], [0, 1, 2, 3, 4])
    config = replace(PLAIN, tokens=9, window="random", max_images=2)
    found = {shown(sequence(doc, config, seed)) for seed in range(200)}
    assert "[]a|[]b c d e" in found
    assert "[]b|[]c d e|" in found
    assert all(text.count("[]") <= 2 for text in found)


@given(seed=st.integers(0, 1000), data=st.data())
def test_any_window_holds_an_image_and_a_target(seed: int, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.sampled_from([0, 1, 5, 60, 900, 3000]), min_size=1, max_size=12))
    texts = [("ab, " * length)[:length] for length in lengths]
    places = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=12))
    config = InterleavedConfig(
        tokens=64, min_similarity=0.0, keep_single=1.0, packed=True, after=0.5,
        max_images=data.draw(st.integers(1, 6)), window=data.draw(st.sampled_from(["start", "random"])),
    )  # fmt: skip
    room, made = data.draw(st.integers(4, 80)), replace(vocabulary(), start=data.draw(st.sampled_from([None, 7])))
    doc = mmc4(texts, places, dom_text_index=[data.draw(st.integers(0, len(texts))) for _ in places])
    page = document(doc, range(len(places)), [1] * len(places))
    found = compose(
        page, made, replace(config, order=data.draw(st.sampled_from(["clip", "dom"]))), random.Random(seed), room
    )
    assert len(found.tokens) <= min(room, 64)
    assert 1 <= len(found.images) == found.tokens.count(made.image) <= config.max_images
    assert len(set(found.images)) == len(found.images)
    ids = torch.tensor([found.tokens])
    assert (targets(ids, torch.ones_like(ids), made, "openflamingo", interleaved=True)[:, 1:] != -100).any()
    # Documents that follow in a packed sequence are told apart by the end, or there is no place for one.
    assert len(found.tokens) == min(room, 64) or found.tokens[-2:] == (made.end_of_chunk, made.end)


def test_no_room() -> None:
    assert reason(lambda: sequence(PAGE, room=3)) == "no_room"


def test_a_page_of_any_length_is_not_read_to_its_end() -> None:
    class Counting:
        encode_special_tokens = True
        characters = 0

        def encode_batch_fast(self, texts: list[str], **_: Any) -> list[Any]:
            self.characters += sum(map(len, texts))
            return list(vocabulary().backend.encode_batch_fast(texts, add_special_tokens=False))

    for doc in (mmc4(["x " * 1_000_000], [0]), mmc4([" ." * 40] * 20_000, [19_999]), mmc4(["-" * 2_000_000], [0])):
        for window in ("start", "random"):
            counting = Counting()
            page = document(doc, [0], [1])
            config = replace(PLAIN, window=window, tokens=64)
            compose(page, replace(vocabulary(), backend=counting), config, random.Random(0), 64)
            assert counting.characters < 4 * 64 * 64 + 2 * MAX_SENTENCE


def test_same_document_same_sequence() -> None:
    config = replace(PLAIN, tokens=64, window="random", after=0.5, look_ahead=0.5)
    assert [sequence(PAGE, config, seed) for seed in range(20)] == [sequence(PAGE, config, seed) for seed in range(20)]


# Documents that are none

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
GOOD = mmc4(["a dog", "two eggs"], [1, 0], dom_text_index=[0, 2])
PATHS: list[tuple[Any, ...]] = [
    ("text_list",), ("text_list", 0), ("image_info",), ("image_info", 1), ("image_info", 0, "matched_text_index"),
    ("image_info", 0, "matched_sim"), ("image_info", 0, "dom_text_index"),
]  # fmt: skip


@given(path=st.sampled_from(PATHS), value=JSON, order=st.sampled_from(["clip", "dom"]))
def test_mangled_documents_are_skipped_and_nothing_else_happens(path: tuple[Any, ...], value: Any, order: Any) -> None:
    doc = json.loads(json.dumps(GOOD))
    at = doc
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    try:
        page = document(doc, range(2), [1, 1])
        found = compose(page, vocabulary(), replace(PLAIN, order=order), random.Random(0), 64)
    except Skip as skip:
        assert skip.reason in {"bad_document", "no_image"}
    else:
        assert 1 <= len(found.images) == found.tokens.count(vocabulary().image)


BAD = [
    {}, {"text_list": "ab", "image_info": []}, {"text_list": ["a"], "image_info": {"0": 1}},
    mmc4(["a"], [1]), mmc4(["a"], [-1]), mmc4(["a"], [True]), mmc4(["a"], [0], matched_sim=[float("nan")]),
    mmc4(["a"], [0], matched_sim=["0.3"]), mmc4(["a"], [0], matched_sim=[10**400]),
    mmc4(["a"], [0], dom_text_index=[2]), mmc4(["a", 3], [0]),  # type: ignore[list-item]
]  # fmt: skip


@pytest.mark.parametrize("doc", BAD)
def test_bad_documents(doc: dict[str, Any]) -> None:
    assert reason(lambda: document(doc, [0], [1])) == "bad_document"


def test_a_picture_that_is_not_there_may_be_bad() -> None:
    assert [picture.index for picture in document(mmc4(["a"], [0, 7]), [0], [1, 0]).pictures] == [0]


def test_more_pictures_than_sizes() -> None:
    assert reason(lambda: document(mmc4(["a"], [0, 0]), [0, 1], [1])) == "bad_document"
