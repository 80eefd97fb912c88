"""Layers that let text tokens see visual tokens: gated cross-attention, with and without its feed-forward.

Shapes: B sequences, L text tokens, D the language model's width, K visual tokens of a sequence (images times R),
d their width, H heads, c width of a head.

Everything that a call depends on is an argument of it. What K and V come from does not change while text is
generated: `project_media` makes them once, and `forward` takes the pair in place of the visual tokens.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import CrossAttentionConfig
from model.layers import FeedForward, Gate, merge_heads, split_heads

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of visual tokens, each [B, H, K, c]."""


class View(NamedTuple):
    """What text may see, from `masking.view`."""

    mask: Tensor  # bool [B, 1, L, K]; all true in rows that see nothing, so that no backend divides by zero
    seen: Tensor  # bool [B, L, 1]; false in rows that see nothing, whose attention is then zero


class CrossAttention(nn.Module):
    """Text attends to visual tokens. A row that sees none gives exactly zero, with finite gradients."""

    def __init__(self, config: CrossAttentionConfig, width: int, media_width: int) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.norm = nn.LayerNorm(width)
        self.media_norm = nn.LayerNorm(media_width) if config.media_norm else None
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(media_width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def project_media(self, media: Tensor) -> KeyValue:
        """Visual tokens [B, K, d] to keys and values."""
        if self.media_norm is not None:
            media = self.media_norm(media)
        k, v = self.to_kv(media).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def forward(self, x: Tensor, media: Tensor | KeyValue, view: View) -> Tensor:
        q = split_heads(self.to_q(self.norm(x)), self.heads)
        k, v = self.project_media(media) if isinstance(media, Tensor) else media
        seen = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), attn_mask=view.mask)
        out: Tensor = self.to_out(merge_heads(seen))
        # A product, not `where`: where the mask is false the value is finite, and so is its gradient of zero.
        return out * view.seen.to(out.dtype)


class CrossAttentionBlock(nn.Module):
    """GATED XATTN-DENSE: y <- y + tanh(a) XAttn(y, media); y <- y + tanh(b) FFW(y).

    `media` None: there is no image in the whole batch, and only the feed-forward runs.
    """

    def __init__(self, config: CrossAttentionConfig, width: int, media_width: int) -> None:
        super().__init__()
        self.ff_on_empty_rows = config.ff_on_empty_rows
        self.attention = CrossAttention(config, width, media_width)
        self.attention_gate = Gate(config.gate, config.gate_start)
        self.ff = FeedForward(width, config.ff_mult, config.activation)
        self.ff_gate = Gate(config.gate, config.gate_start)

    def project_media(self, media: Tensor) -> KeyValue:
        return self.attention.project_media(media)

    def forward(self, x: Tensor, media: Tensor | KeyValue | None, view: View | None) -> Tensor:
        if media is not None and view is not None:
            x = x + self.attention_gate(self.attention(x, media, view)).to(x.dtype)
        if view is None and not self.ff_on_empty_rows:
            return x
        dense: Tensor = self.ff_gate(self.ff(x)).to(x.dtype)
        if view is not None and not self.ff_on_empty_rows:
            dense = dense * view.seen.to(x.dtype)
        return x + dense


class VanillaBlock(nn.Module):
    """VANILLA XATTN: what cross-attention adds between a layer's self-attention and its feed-forward."""

    def __init__(self, config: CrossAttentionConfig, width: int, media_width: int) -> None:
        super().__init__()
        self.attention = CrossAttention(config, width, media_width)
        self.attention_gate = Gate(config.gate, config.gate_start)

    def project_media(self, media: Tensor) -> KeyValue:
        return self.attention.project_media(media)

    def forward(self, x: Tensor, media: Tensor | KeyValue | None, view: View | None) -> Tensor:
        """The addition, not the sum: the frozen layer makes that itself."""
        if media is None or view is None:
            return torch.zeros_like(x)
        out: Tensor = self.attention_gate(self.attention(x, media, view)).to(x.dtype)
        return out


class GraftedBlock(nn.Module):
    """The GRAFTING ablation: causal self-attention, then cross-attention and feed-forward, all new.

    The paper does not say whether the grafted self-attention is gated. It is where the rest is: then a fresh model
    is the language model here too.
    """

    def __init__(self, config: CrossAttentionConfig, width: int, media_width: int) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)
        self.gate = Gate(config.gate, config.gate_start)
        self.cross = CrossAttentionBlock(config, width, media_width)

    def project_media(self, media: Tensor) -> KeyValue:
        return self.cross.project_media(media)

    def forward(self, x: Tensor, media: Tensor | KeyValue | None, view: View | None, causal: Tensor) -> Tensor:
        """`causal`: bool [B or 1, 1, L, L], which tokens a token may see."""
        q, k, v = (split_heads(t, self.heads) for t in self.to_qkv(self.norm(x)).chunk(3, dim=-1))
        attended = self.to_out(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=causal)))
        x = x + self.gate(attended).to(x.dtype)
        out: Tensor = self.cross(x, media, view)
        return out
