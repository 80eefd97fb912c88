"""Which tokens' logits are wanted, and the loss of those that are predicted.

The output layer is as wide as the vocabulary: what it makes of tokens that nobody asks about is lost time and memory.
Places are numbers of tokens in a batch laid flat, b * L + l. Shapes: B sequences, L tokens, V of the vocabulary, P
places.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def target_places(labels: Tensor) -> Tensor:
    """Places [P] of tokens whose next one is a target. On a GPU this waits for it: better made on the CPU, before."""
    predicts = torch.zeros_like(labels, dtype=torch.bool)
    predicts[:, :-1] = labels[:, 1:] != -100
    return predicts.flatten().nonzero()[:, 0]


def last_places(input_ids: Tensor, count: int = 1) -> Tensor:
    """Places [B * count] of the last `count` tokens of each sequence."""
    batch, length = input_ids.shape
    ends = torch.arange(1, batch + 1, device=input_ids.device) * length
    return (ends[:, None] + torch.arange(-count, 0, device=input_ids.device)).flatten()


def token_loss(logits: Tensor, labels: Tensor, places: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum of negative log-likelihoods of the labels, each predicted from the token before it, and their number.

    `logits` [B, L, V], or [P, V] of the tokens at `places`: then labels that no place predicts do not count.
    """
    following = F.pad(labels[:, 1:], (0, 1), value=-100).flatten()
    if places is None:
        targets, logits = labels[:, 1:].flatten(), logits[:, :-1].flatten(0, 1)
    else:
        targets = following[places]
    loss = F.cross_entropy(logits.float(), targets, ignore_index=-100, reduction="sum")
    return loss, (targets != -100).sum()
