"""Rows become one batch: padded on the right, with each picture once and none that is not there.

Shapes: B rows, L tokens, N image slots a row, M images, T frames.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from model.masking import visible
from train.batch import Batch
from train.config import InterleavedConfig
from train.labels import IGNORED, targets
from train.rows import Part, Recipe

# Lengths are rounded up: matrix units want multiples of 8, and fewer different shapes mean fewer kernels to choose.
MULTIPLE = 8

Row = Sequence[Part]


def collate(rows: Sequence[Row], recipe: Recipe, *, all_previous: bool, skipped: Mapping[str, int]) -> Batch:
    """The rows as tensors. `all_previous`: of the model's configuration, what its attention is made for."""
    input_ids, documents, look_ahead = _tokens(rows, recipe.vocabulary.pad)
    mask = (documents > 0).long()
    vocabulary, interleaved = recipe.vocabulary, isinstance(recipe.kind, InterleavedConfig)
    ahead = look_ahead if bool(look_ahead.any()) else None
    return Batch(
        input_ids=input_ids,
        attention_mask=mask,
        labels=targets(input_ids, mask, vocabulary, recipe.kind.labels, interleaved=interleaved),
        phi=visible(input_ids, vocabulary.image, documents=documents, look_ahead=ahead, all_previous=all_previous),
        image_rows=_slots(rows),
        images=_pixels(rows, recipe),
        keys=tuple(tuple(part.piece.key for part in row) for row in rows),
        skipped=dict(skipped),
    )


def nothing(recipe: Recipe, *, all_previous: bool, skipped: Mapping[str, int]) -> Batch:
    """A batch of one token that nobody predicts: for a rank that must take a step with the others and has no sample."""
    one = torch.full((1, 1), recipe.vocabulary.end)
    empty = torch.zeros(0, recipe.frames, 3, recipe.side, recipe.side, dtype=torch.uint8)
    return Batch(
        input_ids=one,
        attention_mask=torch.ones_like(one),
        labels=torch.full_like(one, IGNORED),
        phi=torch.zeros((1, 1, 2) if all_previous else (1, 1), dtype=torch.int64),
        image_rows=torch.zeros(1, 0, dtype=torch.int64),
        images=empty,
        keys=((),),
        skipped=dict(skipped),
    )


def _tokens(rows: Sequence[Row], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """ids; the number of each token's document in its row from 1, 0 on padding; look ahead. All [B, L]."""
    longest = max(sum(len(part.piece.tokens) for part in row) for row in rows)
    shape = len(rows), -(-longest // MULTIPLE) * MULTIPLE
    ids = np.full(shape, pad, np.int64)
    documents = np.zeros(shape, np.int64)
    ahead = np.zeros(shape, np.bool_)
    for number, row in enumerate(rows):
        at = 0
        for order, part in enumerate(row, 1):
            here = np.s_[number, at : at + len(part.piece.tokens)]
            ids[here], documents[here], ahead[here] = part.piece.tokens, order, part.piece.look_ahead
            at += len(part.piece.tokens)
    return torch.from_numpy(ids), torch.from_numpy(documents), torch.from_numpy(ahead)


def _slots(rows: Sequence[Row]) -> Tensor:
    """[B, N]: the images are in the order of rows, and of `<image>` in a row."""
    counts = [sum(len(part.pixels) for part in row) for row in rows]
    slots = torch.full((len(rows), max(counts)), -1, dtype=torch.int64)
    first = 0
    for number, count in enumerate(counts):
        slots[number, :count] = torch.arange(first, first + count)
        first += count
    return slots


def _pixels(rows: Sequence[Row], recipe: Recipe) -> Tensor:
    found = [pixels for row in rows for part in row for pixels in part.pixels]
    images = np.empty((len(found), recipe.frames, 3, recipe.side, recipe.side), np.uint8)
    for number, pixels in enumerate(found):
        images[number] = pixels
    return torch.from_numpy(images)
