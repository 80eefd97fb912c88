"""A stand-in for MPT-1B, the language model of OpenFlamingo-3B: code on a hub, of before transformers knew MPT.

What is unlike the others is its interface, and that is what this has: sizes under names of its own; token ids and no
embeddings; a mask of bools, which is inverted with `~`; a cache that is a list of pairs [B, L, D], filled in place;
no word of what its embeddings are, only that they are a module; no output layer, logits being the last norm times
the table of embeddings.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class FirstMptConfig(PretrainedConfig):  # type: ignore[misc]
    model_type = "first_mpt"

    def __init__(self, d_model: int = 32, n_heads: int = 4, n_layers: int = 4, vocab_size: int = 100, **rest: Any):
        self.d_model, self.n_heads, self.n_layers, self.vocab_size = d_model, n_heads, n_layers, vocab_size
        self.logit_scale = None
        super().__init__(**rest)


class Attention(nn.Module):
    """Norms over the whole width of queries and keys; distance is told by ALiBi."""

    def __init__(self, config: FirstMptConfig) -> None:
        super().__init__()
        self.heads = config.n_heads
        self.Wqkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.q_ln, self.k_ln = (nn.LayerNorm(config.d_model, bias=False) for _ in range(2))
        self.out_proj = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor, past: Any, bias: Tensor) -> tuple[Tensor, Any]:
        q, k, v = self.Wqkv(x).chunk(3, dim=-1)
        q, k = self.q_ln(q), self.k_ln(k)
        if past is not None:
            if len(past):
                k, v = torch.cat([past[0], k], dim=1), torch.cat([past[1], v], dim=1)
            past = (k, v)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[:, :, -q.shape[2] :])
        return self.out_proj(seen.transpose(1, 2).flatten(2)), past


class Block(nn.Module):
    def __init__(self, config: FirstMptConfig) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = (nn.LayerNorm(config.d_model, bias=False) for _ in range(2))
        self.attn = Attention(config)
        self.mlp = nn.Sequential(
            nn.Linear(config.d_model, 64, bias=False), nn.GELU(), nn.Linear(64, config.d_model, bias=False)
        )

    def forward(self, x: Tensor, past_key_value: Any = None, attn_bias: Any = None) -> tuple[Tensor, Any]:
        attended, past_key_value = self.attn(self.ln_1(x), past_key_value, attn_bias)
        x = x + attended
        return x + self.mlp(self.ln_2(x)), past_key_value


class FirstMpt(PreTrainedModel):  # type: ignore[misc]
    config_class = FirstMptConfig
    base_model_prefix = "first_mpt"

    def __init__(self, config: FirstMptConfig) -> None:
        super().__init__(config)
        self.transformer = nn.ModuleDict({"wte": nn.Embedding(config.vocab_size, config.d_model)})
        self.transformer.update({"emb_drop": nn.Dropout(0.0)})
        self.transformer.update({"blocks": nn.ModuleList(Block(config) for _ in range(config.n_layers))})
        self.transformer.update({"ln_f": nn.LayerNorm(config.d_model, bias=False)})

    def _bias(self, length: int, mask: Tensor | None) -> Tensor:
        distance = torch.arange(1 - length, 1)
        slopes = 2.0 ** -torch.arange(1, self.config.n_heads + 1)
        bias = (slopes[:, None, None] * distance).expand(-1, length, -1)[None]
        least = torch.finfo(bias.dtype).min
        bias = bias.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), least)
        return bias if mask is None else bias.masked_fill(~mask[:, None, None], least)

    def forward(
        self,
        input_ids: Tensor,
        past_key_values: list[Any] | None = None,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
        use_cache: bool | None = None,
    ) -> CausalLMOutputWithPast:
        if use_cache and past_key_values is None:
            past_key_values = [() for _ in range(self.config.n_layers)]
        known = past_key_values[0][0].shape[1] if past_key_values and past_key_values[0] else 0
        bias = self._bias(known + input_ids.shape[1], attention_mask)
        x = self.transformer.emb_drop(self.transformer.wte(input_ids))
        for index, block in enumerate(self.transformer.blocks):
            past = None if past_key_values is None else past_key_values[index]
            x, past = block(x, past_key_value=past, attn_bias=bias)
            if past_key_values is not None:
                past_key_values[index] = past
        x = self.transformer.ln_f(x)
        assert isinstance(self.transformer.wte, nn.Module) and isinstance(self.transformer.wte.weight, Tensor)
        return CausalLMOutputWithPast(logits=F.linear(x, self.transformer.wte.weight), past_key_values=past_key_values)
