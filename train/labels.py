"""Which tokens are predicted.

Shapes: B sequences, L tokens. Labels are unshifted, as in transformers: the token at place t is predicted from those
before it, and the first of a sequence never is.
"""

import torch
from torch import Tensor

from train.config import Labels
from train.vocabulary import Vocabulary

IGNORED = -100


def targets(
    input_ids: Tensor, attention_mask: Tensor, vocabulary: Vocabulary, scheme: Labels, *, interleaved: bool
) -> Tensor:
    """int64 [B, L]: the ids, and -100 where nothing is predicted.

    Both schemes leave out padding, `<image>` and the start token. 'paper': all else is predicted. 'openflamingo':
    in interleaved documents only what stands between an `<image>` and the next `<|endofchunk|>`, which is included.
    So nothing before the first image, and no eos; in pairs the eos is predicted, because the peer compares numbers
    with the token's name (train_utils.py). A document of a packed sequence either ends with `<|endofchunk|>` and
    eos, or fills the sequence: the rule then holds for each on its own.
    """
    wanted = attention_mask.bool() & (input_ids != vocabulary.image)
    if vocabulary.start is not None:
        wanted &= ~_starts(input_ids, vocabulary.start, vocabulary.end)
    if scheme == "openflamingo" and interleaved:
        wanted &= _after_image(input_ids, vocabulary)
    return input_ids.masked_fill(~wanted, IGNORED)


def _starts(input_ids: Tensor, start: int, end: int) -> Tensor:
    """bool [B, L]: start tokens. In OPT the start token is the end token, so its place decides."""
    previous_is_end = torch.ones_like(input_ids, dtype=torch.bool)
    previous_is_end[:, 1:] = input_ids[:, :-1] == end
    return (input_ids == start) & previous_is_end


def _after_image(input_ids: Tensor, vocabulary: Vocabulary) -> Tensor:
    """bool [B, L]: of the images and ends of chunk before a token, the last is an image."""
    place = 2 * torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device)
    is_image, is_end = input_ids == vocabulary.image, input_ids == vocabulary.end_of_chunk
    marks = torch.where(is_image, place + 1, torch.where(is_end, place, 0))  # odd: an image
    last = torch.zeros_like(marks)
    last[:, 1:] = marks[:, :-1].cummax(1).values
    return last % 2 == 1
