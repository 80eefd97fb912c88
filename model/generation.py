"""Text after a prompt with images: greedy, sampled or by beams, through transformers' own `generate`.

    tokens = generate(model, prompts, num_beams=3, max_new_tokens=20, eos_token_id=end_of_chunk)

The prompt is read once for each prompt and not once for each beam; see model/prefix.py for what is kept. A generated
token sees what the prompt's last token sees.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from model.flamingo import Flamingo
from model.language import layer_count
from model.prefix import Form, Prompts, Sight, form_of, to_cache, to_model
from model.targets import last_places


class Writer(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """What transformers' `generate` drives. It holds one call's prompts and none of the weights."""

    # This class has no attention of its own: it must not ask whether the language model's kind is supported.
    _supports_sdpa = True
    _supports_cache_class = True
    _supports_static_cache = False

    def __init__(self, model: Flamingo, sight: Sight | None, form: Form) -> None:
        config: Any = copy.deepcopy(model.lm.config)
        config._attn_implementation = "eager"
        if not hasattr(config.get_text_config(), "num_hidden_layers"):
            config.get_text_config().num_hidden_layers = layer_count(model.lm)
        new = model.new_tokens
        if new.count:
            config.get_text_config().vocab_size = new.first + new.count  # transformers 4 lays beams out by it
        super().__init__(config)
        self.generation_config = copy.deepcopy(_settings(model.lm))
        self._state = (model, sight, form)

    @property
    def device(self) -> torch.device:
        return next(self._state[0].lm.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self._state[0].lm.parameters()).dtype

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, past_key_values: Any = None, attention_mask: Any = None, **options: Any
    ) -> dict[str, Any]:
        read = 0 if past_key_values is None else past_key_values.get_seq_length()
        return {
            "input_ids": input_ids[:, read:],
            "past_key_values": past_key_values if options.get("use_cache", True) else None,
            "attention_mask": attention_mask,
            "use_cache": options.get("use_cache", True),
            "logits_to_keep": options.get("logits_to_keep", 0),
        }

    def forward(
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        use_cache: bool = True,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """`logits_to_keep`: of the last tokens alone, as transformers asks for; 0: of all."""
        model, sight, form = self._state
        seen = {} if sight is None else _for_tokens(sight, input_ids.shape[1]).inputs
        past = to_model(past_key_values, form) if _filled(past_key_values) else None
        places = last_places(input_ids, logits_to_keep) if logits_to_keep else None
        found = model(
            input_ids, attention_mask=attention_mask, past_key_values=past, use_cache=use_cache, places=places, **seen
        )
        logits = found.logits if places is None else found.logits.unflatten(0, (len(input_ids), logits_to_keep))
        return CausalLMOutputWithPast(logits=logits, past_key_values=to_cache(found.past_key_values))


def _filled(cache: Any) -> bool:
    return cache is not None and cache.get_seq_length() > 0


def _for_tokens(sight: Sight, tokens: int) -> Sight:
    """phi for the call's tokens: one that follows the prompt, or the whole prompt and what follows it."""
    known = sight.phi.shape[1]
    if tokens == known:
        return sight
    if known == 1:
        return sight.stretched(tokens)
    phi = torch.cat([sight.phi, sight.stretched(tokens - known).phi], dim=1)
    return Sight(media=sight.media, image_rows=sight.image_rows, phi=phi)


@torch.no_grad()
def generate(model: Flamingo, prompts: Prompts, *, use_cache: bool = True, **options: Any) -> Any:
    """Prompts with what follows them, [B * num_return_sequences, L + new]: `options` and result are transformers'.

    `use_cache` False computes everything anew at each step, which is what tests compare with; the grafted layers
    have no cache and always work so.
    """
    if model.config.cross_attention.kind == "grafting":
        use_cache = False
    ids, mask = prompts.input_ids, prompts.attention_mask
    sight = prompts.sight(model)
    beams = _copies(model.lm, options)
    past: Any = None
    form: Form = "cache"
    if use_cache and ids.shape[1] > 1:
        seen = {} if sight is None else sight.before_last().inputs
        nothing = ids.new_empty(0)  # of this part's logits
        read = model(ids[:, :-1], attention_mask=mask[:, :-1], use_cache=True, places=nothing, **seen)
        form = form_of(read.past_key_values)
        past = to_cache(read.past_key_values)
        if beams > 1:
            past.batch_repeat_interleave(beams)
        sight = None if sight is None else sight.of_last()
    writer = Writer(model, None if sight is None else sight.repeated(beams), form)
    if past is not None:
        options["past_key_values"] = past
    return writer.generate(ids, attention_mask=mask, use_cache=use_cache, **options)


def _copies(lm: nn.Module, options: dict[str, Any]) -> int:
    """How many rows `generate` makes of each prompt."""
    settings = options.get("generation_config") or _settings(lm)
    beams = options.get("num_beams", settings.num_beams) or 1
    sampled = options.get("num_return_sequences", settings.num_return_sequences) or 1
    return int(beams if beams > 1 else sampled)


def _settings(lm: nn.Module) -> Any:
    """The language model's own. Models that cannot `generate` by themselves have none."""
    return getattr(lm, "generation_config", None) or GenerationConfig()
