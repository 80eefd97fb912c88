"""How likely each of some continuations is after a prompt: for answers that are chosen rather than written.

The prompt is read once; candidates continue its cache side by side.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.flamingo import Flamingo
from model.prefix import Form, Prompts, Sight, form_of, to_cache, to_model
from model.targets import last_places


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihoods:
    """`total` [B, C]: sums of log-probabilities of the candidates' tokens. `tokens` [C]: how many those are."""

    total: Tensor
    tokens: Tensor

    @property
    def mean(self) -> Tensor:
        """A token: does not favour short candidates."""
        return self.total / self.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """Prompts whose text is in the cache: `after` [B, V] are log-probabilities of the token that comes next."""

    cache: Any
    form: Form
    mask: Tensor
    sight: Sight | None
    after: Tensor


@torch.no_grad()
def log_likelihoods(
    model: Flamingo, prompts: Prompts, candidates: Sequence[Sequence[int]], *, rows: int = 64
) -> Likelihoods:
    """Of each candidate (token ids, without special ones) after each prompt. At most about `rows` rows at a time."""
    if not candidates or not all(candidates):
        raise ValueError("candidates must be given, and have at least one token each")
    read = _read(model, prompts)
    batch = len(prompts.input_ids)
    total = torch.empty(batch, len(candidates), device=read.after.device)
    # Neighbours in length go together, so that little is padded.
    order = sorted(range(len(candidates)), key=lambda index: len(candidates[index]))
    step = max(1, rows // batch)
    for start in range(0, len(order), step):
        chosen = order[start : start + step]
        total[:, chosen] = _continued(model, read, [candidates[index] for index in chosen])
    return Likelihoods(total=total, tokens=torch.tensor([len(one) for one in candidates], device=total.device))


def _read(model: Flamingo, prompts: Prompts) -> _Read:
    sight = prompts.sight(model)
    seen = {} if sight is None else sight.inputs
    cached = model.config.cross_attention.kind != "grafting"
    if not cached:
        raise ValueError("grafted layers keep no cache, which ranking needs")
    ids = prompts.input_ids
    found = model(ids, attention_mask=prompts.attention_mask, use_cache=True, places=last_places(ids), **seen)
    return _Read(
        cache=to_cache(found.past_key_values),
        form=form_of(found.past_key_values),
        mask=prompts.attention_mask,
        sight=None if sight is None else sight.of_last(),
        after=found.logits.float().log_softmax(-1),
    )


def _continued(model: Flamingo, read: _Read, candidates: Sequence[Sequence[int]]) -> Tensor:
    """[B, C]: the first token's probability is known from the prompt; the last token is only predicted, not read."""
    device, batch, count = read.after.device, len(read.after), len(candidates)
    first = torch.tensor([one[0] for one in candidates], device=device)
    total = read.after[:, first]
    longest = max(map(len, candidates)) - 1
    if not longest:
        return total
    shown = torch.tensor([[*one[:-1], *[0] * (longest + 1 - len(one))] for one in candidates], device=device)
    wanted = torch.tensor([[*one[1:], *[-1] * (longest + 1 - len(one))] for one in candidates], device=device)
    logits = _logits(model, read, shown, wanted >= 0)
    found = logits.float().log_softmax(-1).view(batch, count, longest, -1)
    index = wanted.clamp(min=0).expand(batch, -1, -1)[..., None]
    further = found.gather(-1, index)[..., 0].masked_fill(wanted < 0, 0.0)
    return total + further.sum(-1)


def _logits(model: Flamingo, read: _Read, shown: Tensor, real: Tensor) -> Tensor:
    """[B * C, T, V] for the candidates [C, T] after every prompt; `real` marks what is not padding."""
    batch, count = len(read.after), len(shown)
    cache = copy.deepcopy(read.cache)
    cache.batch_repeat_interleave(count)
    mask = torch.cat([read.mask.repeat_interleave(count, 0), real.to(read.mask.dtype).repeat(batch, 1)], dim=1)
    sight = None if read.sight is None else read.sight.repeated(count).stretched(shown.shape[1])
    logits: Tensor = model(
        shown.repeat(batch, 1),
        attention_mask=mask,
        past_key_values=to_model(cache, read.form),
        use_cache=True,
        **({} if sight is None else sight.inputs),
    ).logits
    return logits
