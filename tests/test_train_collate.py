"""Rows as tensors: padding, slots, what sees what, and no picture that is not there."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from training_data import colour_of, nearest_number
from training_tokens import vocabulary

from train.collate import collate, nothing
from train.config import ImagesConfig, InterleavedConfig, Kind, PairsConfig, VideosConfig
from train.rows import Part, Recipe
from train.sequences import Piece

WORDS = vocabulary()
IMG, END, A = WORDS.image, WORDS.end_of_chunk, 40  # an image, an end of chunk, a word


def recipe(kind: Kind | None = None) -> Recipe:
    return Recipe(kind=kind or InterleavedConfig(), vocabulary=WORDS, images=ImagesConfig(), side=8, seed=0)


def part(key: str, tokens: Sequence[int], *numbers: int, frames: int = 1, look_ahead: bool = False) -> Part:
    pixels = tuple(
        np.broadcast_to(np.array(colour_of(number), np.uint8)[None, :, None, None], (frames, 3, 8, 8))
        for number in numbers
    )
    piece = Piece(key=key, tokens=tuple(tokens), images=tuple(range(len(numbers))), look_ahead=look_ahead)
    return Part(piece=piece, pixels=pixels)


ROWS = [
    [part("a", (A, IMG, A, END, IMG, A, END), 1, 2), part("b", (A, A, IMG, A), 3)],
    [part("c", (IMG, A, END), 4)],
    [part("d", (A, A))],
]


def test_a_packed_batch() -> None:
    batch = collate(ROWS, recipe(), all_previous=False, skipped={"bad_image": 2})
    assert batch.input_ids.shape == (3, 16)  # 11, rounded up to a multiple of 8
    assert batch.attention_mask.sum(1).tolist() == [11, 3, 2] and batch.real_tokens == 16
    assert (batch.input_ids[batch.attention_mask == 0] == WORDS.pad).all()
    assert batch.phi.tolist() == [
        [0, 1, 1, 1, 2, 2, 2, 0, 0, 3, 3] + [0] * 5,
        [1, 1, 1] + [0] * 13,
        [0] * 16,
    ]
    assert batch.image_rows.tolist() == [[0, 1, 2], [3, -1, -1], [-1, -1, -1]]
    assert batch.images.shape == (4, 1, 3, 8, 8) and batch.images.dtype == torch.uint8
    assert [nearest_number(image[0]) for image in batch.images.numpy()] == [1, 2, 3, 4]
    assert batch.keys == (("a", "b"), ("c",), ("d",)) and batch.skipped == {"bad_image": 2}
    assert (batch.labels[batch.attention_mask == 0] == -100).all()
    assert batch.targets == 4 + 1 + 2


@pytest.mark.parametrize("all_previous", (False, True))
def test_what_documents_see(all_previous: bool) -> None:
    row = [part("a", (IMG, A, IMG, A), 1, 2), part("b", (IMG, A), 3)]
    batch = collate([row], recipe(), all_previous=all_previous, skipped={})
    if all_previous:
        assert batch.phi[0, :6].tolist() == [[1, 1], [1, 1], [1, 2], [1, 2], [3, 3], [3, 3]]
    else:
        assert batch.phi[0].tolist() == [1, 1, 2, 2, 3, 3, 0, 0]


def test_look_ahead_is_of_a_document() -> None:
    row = [part("a", (A, IMG, A), 1, look_ahead=True), part("b", (A, IMG, A), 2)]
    assert collate([row], recipe(), all_previous=False, skipped={}).phi[0, :6].tolist() == [1, 1, 0, 0, 2, 2]


@pytest.mark.parametrize("kind", (PairsConfig(), VideosConfig(frames=3)))
def test_frames(kind: Kind) -> None:
    made = recipe(kind)
    rows = [[part(str(number), (IMG, A, END, WORDS.end), number, frames=made.frames)] for number in range(2)]
    batch = collate(rows, made, all_previous=False, skipped={})
    assert batch.images.shape == (2, made.frames, 3, 8, 8)
    assert batch.labels[0, :5].tolist() == [-100, A, END, WORDS.end, -100]


def test_text_alone_has_no_pictures() -> None:
    batch = collate([[part("d", (A,) * 8)]], recipe(), all_previous=False, skipped={})
    assert batch.images.shape == (0, 1, 3, 8, 8) and batch.image_rows.shape == (1, 0)
    assert batch.input_ids.shape == (1, 8)


@pytest.mark.parametrize("all_previous", (False, True))
def test_nothing_is_predicted_in_nothing(all_previous: bool) -> None:
    batch = nothing(recipe(), all_previous=all_previous, skipped={"no_image": 1})
    assert batch.targets == 0 and batch.input_ids.shape == (1, 1) and batch.phi.ndim == (3 if all_previous else 2)
    assert batch.images.shape == (0, 1, 3, 8, 8) and batch.skipped == {"no_image": 1}
