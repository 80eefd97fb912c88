"""New tokens: a small trainable table beside the language model's own, for their embeddings and their logits.

The new ids follow the tokenizer's own. The frozen table may have rows there already (padding to a round number): the
small table stands in for them, and is filled from them. Nothing masks gradients, and the optimizer keeps no state for
the frozen rows.
"""

import torch
from torch import Tensor, nn

from model.config import ConfigError


class NewTokens(nn.Module):
    """Ids `first` to `first + count - 1`. `output` is None where the language model ties its two tables."""

    def __init__(self, first: int, count: int, width: int, *, tied: bool) -> None:
        super().__init__()
        self.first, self.count = first, count
        self.weight = nn.Parameter(torch.zeros(count, width))
        self.output = None if tied else nn.Parameter(torch.zeros(count, width))

    @torch.no_grad()
    def fill_from(self, table: Tensor, output: Tensor) -> None:
        """Rows that the frozen tables have for the new ids, or the mean of the tokenizer's own rows."""
        if len(table) < self.first:
            raise ConfigError(f"vocab_size is {self.first}, but the language model has {len(table)} embeddings")
        for new, old in ((self.weight, table), (self.output, output)):
            if new is not None:
                rows = old[self.first : self.first + self.count]
                missing = self.count - len(rows)
                mean = old[: self.first].float().mean(0, keepdim=True).expand(missing, -1)
                new.copy_(torch.cat([rows.to(mean.dtype), mean]))

    def embed(self, table: nn.Module, input_ids: Tensor) -> Tensor:
        """[B, L] to [B, L, D]."""
        if not self.count:
            out: Tensor = table(input_ids)
            return out
        is_new = input_ids >= self.first
        old = table(input_ids.masked_fill(is_new, 0))
        new = nn.functional.embedding((input_ids - self.first).clamp(min=0), self.weight).to(old.dtype)
        return torch.where(is_new[..., None], new, old)

    def logits(self, hidden: Tensor, old: Tensor) -> Tensor:
        """The language model's logits [.., V] with the new tokens' at their ids: [.., first + count]."""
        if not self.count:
            return old
        weight = self.weight if self.output is None else self.output
        new = nn.functional.linear(hidden, weight.to(hidden.dtype)).to(old.dtype)
        return torch.cat([old[..., : self.first], new], dim=-1)
