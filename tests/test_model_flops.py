"""Operations by formula, beside those that torch counts."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_flamingos import batch, flamingo
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model import config as configs
from model.flops import Batch, flops_per_batch

pytest.importorskip("transformers")

BASE = configs.tiny()
FROZEN = replace(BASE, language=replace(BASE.language, train_new_tokens=False))


@pytest.mark.parametrize("family", ("llama", "mpt", "gpt2", "opt", "first_mpt"))
@pytest.mark.parametrize(
    "config",
    [
        BASE, FROZEN, configs.every_nth(FROZEN, 4), configs.single_in_the_middle(FROZEN),
        configs.vanilla_cross_attention(BASE), configs.grafting(BASE, layers=2), configs.mlp_resampler(BASE),
        configs.transformer_resampler(BASE), configs.train_language(BASE),
    ],
)  # fmt: skip
def test_formula_agrees_with_the_counter(family: str, config: configs.FlamingoConfig) -> None:
    model = flamingo(family, config, gates=0.5).train()
    model.vision.image_size = 16
    data: Any = batch(frames=2)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        loss = model(**data.arguments()).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    found = flops_per_batch(model, Batch(sequences=3, tokens=12, slots=3, images=3, frames=2))
    assert found.forward == pytest.approx(forward.get_total_flops(), rel=0.02)
    assert found.backward == pytest.approx(backward.get_total_flops(), rel=0.02)


def test_text_alone_costs_no_vision() -> None:
    model = flamingo()
    alone = flops_per_batch(model, Batch(sequences=2, tokens=8, slots=0, images=0))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(torch.randint(3, 90, (2, 8)))
    assert alone.forward == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert alone.total > alone.forward
