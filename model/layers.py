"""Small parts that resampler and cross-attention share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import Activation


class FeedForward(nn.Module):
    """LayerNorm, widen, activate, narrow. The caller adds the residual."""

    def __init__(self, width: int, mult: int, activation: Activation) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, mult * width, bias=False)
        self.down = nn.Linear(mult * width, width, bias=False)
        self.squared_relu = activation == "squared_relu"

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.norm(x))
        out: Tensor = self.down(F.relu(x).square() if self.squared_relu else F.gelu(x))
        return out


class Gate(nn.Module):
    """tanh(a) y. With a = 0 at the start a new layer changes nothing yet. Shape [1], as FSDP2 shards no scalars."""

    def __init__(self, learnt: bool = True, start: float = 0.0) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.full((1,), start)) if learnt else None

    def forward(self, y: Tensor) -> Tensor:
        # A parameter in fp32 beside activations in bf16 must not widen the residual stream.
        return y if self.value is None else y * self.value.tanh().to(y.dtype)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, L, H * c] to [B, H, L, c]"""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, L, c] to [B, L, H * c]"""
    return x.transpose(1, 2).flatten(2)
