"""Patch features of an image or a video become a few visual tokens: the Perceiver Resampler, and its two ablations.

Shapes: M images, T frames, S patches a frame, d width of patch features, w the resampler's width, R visual tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ResamplerConfig
from model.layers import FeedForward, merge_heads, split_heads


class Attention(nn.Module):
    """Queries look at themselves and at what else is given (paper A.1.1: kv = concat(x_f, x))."""

    def __init__(self, config: ResamplerConfig, *, context: bool) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.width)
        self.context_norm = nn.LayerNorm(config.width) if context else None
        self.to_q = nn.Linear(config.width, inner, bias=False)
        self.to_kv = nn.Linear(config.width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, config.width, bias=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        seen = x if self.context_norm is None or context is None else torch.cat([self.context_norm(context), x], dim=1)
        k, v = self.to_kv(seen).chunk(2, dim=-1)
        q, k, v = (split_heads(t, self.heads) for t in (self.to_q(x), k, v))
        out: Tensor = self.to_out(merge_heads(F.scaled_dot_product_attention(q, k, v)))
        return out


class Layer(nn.Module):
    """Attention and feed-forward, each with its residual."""

    def __init__(self, config: ResamplerConfig, *, context: bool) -> None:
        super().__init__()
        self.attention = Attention(config, context=context)
        self.ff = FeedForward(config.width, config.ff_mult, config.activation)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = x + self.attention(x, context)
        out: Tensor = x + self.ff(x)
        return out


class Resampler(nn.Module):
    """[M, T, S, d] to [M, R, w]. S and T may differ from call to call."""

    def __init__(self, config: ResamplerConfig, input_width: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.project = nn.Linear(input_width, width, bias=False) if input_width != width else None
        self.time = nn.Parameter(torch.empty(config.frames, width)) if config.frames else None
        self.latents = nn.Parameter(torch.empty(config.latents, width)) if config.kind == "perceiver" else None
        self.mix = GridMLP(config) if config.kind == "mlp" else None
        depth = 0 if config.kind == "mlp" else config.depth
        self.layers = nn.ModuleList(Layer(config, context=config.kind == "perceiver") for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for parameter in (self.latents, self.time):
            if parameter is not None:
                nn.init.normal_(parameter, std=self.config.latents_std if parameter is self.latents else 0.02)

    def forward(self, features: Tensor) -> Tensor:
        x = features if self.project is None else self.project(features)
        if self.time is not None:
            x = x + interpolated(self.time, x.shape[1])[:, None].to(x.dtype)
        elif x.shape[1] != 1:
            raise ValueError(f"{x.shape[1]} frames, but this resampler was made without time embeddings (frames=0)")
        x = x.flatten(1, 2)
        if self.mix is not None:
            x = self.mix(x)
        elif self.latents is not None:
            latents = self.latents.to(x.dtype).expand(len(x), -1, -1)
            for layer in self.layers:
                latents = layer(latents, x)
            x = latents
        else:
            for layer in self.layers:
                x = layer(x)
        out: Tensor = self.norm(x)
        return out


class GridMLP(nn.Module):
    """The MLP ablation: the whole grid, pooled to R places and flattened, through one hidden layer and back.

    The hidden layer is as wide as gives the Perceiver's number of parameters, which is all that the paper says of it.
    """

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        self.latents = config.latents
        grid = config.latents * config.width
        inner = config.heads * config.head_dim
        budget = config.depth * (4 * inner + 2 * config.ff_mult * config.width) * config.width
        hidden = max(1, budget // (2 * grid))
        self.norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(grid, hidden, bias=False)
        self.down = nn.Linear(hidden, grid, bias=False)
        self.squared_relu = config.activation == "squared_relu"

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool1d(x.transpose(1, 2), self.latents).transpose(1, 2)
        hidden = self.up(self.norm(x).flatten(1))
        hidden = F.relu(hidden).square() if self.squared_relu else F.gelu(hidden)
        out: Tensor = self.down(hidden)
        return x + out.view_as(x)


def interpolated(embeddings: Tensor, frames: int) -> Tensor:
    """Time embeddings [F, w] for `frames` frames: the first ones, or stretched linearly over more than F.

    So a model trained on 8 frames at 1 fps reads 30 at 3 fps (paper A.1.1); the two ends stay where they are.
    """
    if frames <= len(embeddings):
        return embeddings[:frames]
    stretched = F.interpolate(embeddings.T[None], size=frames, mode="linear", align_corners=True)
    return stretched[0].T
