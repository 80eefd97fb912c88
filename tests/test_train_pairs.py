"""Captions as sequences; OpenFlamingo's own preprocessing gives the same (tests/data/openflamingo_text)."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_tokens import vocabulary
from transformers import PreTrainedTokenizerFast

from model.config import LanguageConfig
from train.labels import targets
from train.pairs import compose
from train.sequences import Piece, Skip
from train.vocabulary import Vocabulary, of

PEER = Path(__file__).parent / "data" / "openflamingo_text"


def piece(caption: str | None, made: Vocabulary | None = None, tokens: int = 32, leading_space: float = 0.0) -> Piece:
    return compose("k", caption, made or vocabulary(), tokens, leading_space, random.Random(0))


def peer_vocabulary() -> Vocabulary:
    tokens = PreTrainedTokenizerFast(tokenizer_file=str(PEER / "tokenizer.json"), eos_token="<|endoftext|>")
    return of(tokens, LanguageConfig(name=None, layers=1, width=8, vocab_size=len(tokens), new_tokens=3))


@pytest.mark.parametrize(
    "case", json.loads((PEER / "cases.json").read_text())["pairs"], ids=lambda c: repr(c["caption"])
)
def test_openflamingo_makes_the_same(case: dict[str, Any]) -> None:
    made = peer_vocabulary()
    found = piece(case["caption"], made)
    assert list(found.tokens) == case["ids"]
    ids = torch.tensor([found.tokens])
    assert targets(ids, torch.ones_like(ids), made, "openflamingo", interleaved=False)[0].tolist() == case["labels"]


def test_a_caption_stands_between_image_and_end() -> None:
    made = vocabulary()
    (text,) = made.encode(["two eggs"])
    assert piece("  two eggs\n") == Piece(
        key="k", tokens=(made.image, *text, made.end_of_chunk, made.end), images=(0,), look_ahead=False
    )


@pytest.mark.parametrize("tokens", [4, 5, 16])
def test_the_caption_is_cut_and_the_end_stays(tokens: int) -> None:
    made = vocabulary()
    found = piece("a dog that runs along the beach " * 20, made, tokens).tokens
    assert len(found) == tokens
    assert (found[0], found[-2:]) == (made.image, (made.end_of_chunk, made.end))


def test_a_start_token_where_the_tokenizer_puts_one() -> None:
    made = replace(vocabulary(), start=5)
    found = piece("two eggs " * 20, made, tokens=8).tokens
    assert (len(found), found[:2], found[-1]) == (8, (5, made.image), made.end)


@pytest.mark.parametrize("chance", [0.0, 0.25, 1.0])
def test_a_leading_space_by_chance(chance: float) -> None:
    made, rng = vocabulary(), random.Random(3)
    texts = [made.decode(compose("k", "a dog", made, 32, chance, rng).tokens) for _ in range(400)]
    assert set(texts) <= {"a dog", " a dog"}
    assert abs(texts.count(" a dog") / 400 - chance) < 0.08


def test_no_second_space_where_the_tokenizer_puts_one() -> None:
    made = replace(vocabulary(), adds_space=True)
    assert piece("a dog", made, leading_space=1.0) == piece("a dog", made)


@pytest.mark.parametrize("caption", [None, "", " \n\t"])
def test_no_caption(caption: str | None) -> None:
    with pytest.raises(Skip) as skip:
        piece(caption)
    assert skip.value.reason == "no_caption"


def test_no_room() -> None:
    with pytest.raises(Skip) as skip:
        piece("a dog", tokens=3)
    assert skip.value.reason == "no_room"


def test_an_endless_caption_is_not_read_to_its_end() -> None:
    class Counting:
        encode_special_tokens = True
        characters = 0

        def encode_batch_fast(self, texts: list[str], **_: Any) -> list[Any]:
            self.characters += sum(map(len, texts))
            return list(vocabulary().backend.encode_batch_fast(texts, add_special_tokens=False))

    counting = Counting()
    piece("x" * 10_000_000, replace(vocabulary(), backend=counting))
    assert counting.characters <= 32 * 64
