"""Which weights decay, and the rate of each update."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_flamingos import flamingo

from model import config as configs
from train import optimizer
from train.config import OptimizerConfig

pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("step", "warmup", "expected"),
    [(0, 5000, 1e-4 / 5000), (2499, 5000, 0.5e-4), (4999, 5000, 1e-4), (5000, 5000, 1e-4), (10**6, 5000, 1e-4)]
    + [(0, 0, 1e-4), (0, 1, 1e-4)],
)
def test_rate_warms_up_and_stays(step: int, warmup: int, expected: float) -> None:
    assert optimizer.rate(step, OptimizerConfig(rate=1e-4, warmup=warmup)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blocks.0.attention.to_q.weight", True),
        ("blocks.0.attention.to_kv.weight", True),
        ("blocks.3.attention.to_out.weight", True),
        ("blocks.0.ff.up.weight", True),
        ("blocks.0.ff.down.weight", True),
        ("blocks.0.attention.norm.weight", False),
        ("blocks.0.attention.norm.bias", False),
        ("blocks.0.attention.media_norm.weight", False),
        ("blocks.0.attention_gate.value", False),
        ("blocks.0.ff_gate.value", False),
        ("resampler.latents", False),
        ("resampler.time", False),
        ("resampler.project.weight", False),
        ("resampler.layers.0.attention.to_q.weight", False),
        ("resampler.layers.1.ff.up.weight", False),
        ("new_tokens.weight", False),
        ("new_tokens.output", False),
    ],
)
def test_what_decays(name: str, expected: bool) -> None:
    model = flamingo("llama")
    assert name in optimizer.trained(model)
    assert (name in optimizer.decays(model)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lm.model.layers.0.self_attn.q_proj.weight", True),
        ("lm.model.layers.0.input_layernorm.weight", False),
        ("lm.model.embed_tokens.weight", False),
        ("vision.trunk.weight", True),
        ("vision.trunk.bias", False),
    ],
)
def test_what_decays_where_all_is_trained(name: str, expected: bool) -> None:
    model = flamingo("llama", configs.train_vision(configs.train_language(configs.tiny())))
    assert name in optimizer.trained(model)
    assert (name in optimizer.decays(model)) == expected


def test_every_trained_weight_is_in_one_group_and_nothing_frozen_is() -> None:
    model = flamingo("gpt2")
    made = optimizer.build(model, OptimizerConfig(rate=3e-4, weight_decay=0.25, betas=(0.9, 0.95)))
    found = [id(p) for group in made.param_groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    by_decay = {group["weight_decay"]: len(group["params"]) for group in made.param_groups}
    assert by_decay == {0.25: len(optimizer.decays(model)), 0.0: len(found) - len(optimizer.decays(model))}
    assert {group["lr"] for group in made.param_groups} == {3e-4}


def test_state_made_beforehand_is_that_of_the_first_update() -> None:
    def updated(make: Any) -> list[torch.Tensor]:
        model = flamingo("llama", replace(configs.tiny()))
        made = make(model)
        for number, parameter in enumerate(optimizer.trained(model).values()):
            parameter.grad = torch.full_like(parameter, 0.1 * (number + 1))
        made.step()
        made.step()
        return [p.detach() for p in optimizer.trained(model).values()]

    ours = updated(lambda model: optimizer.build(model, OptimizerConfig()))

    def plain(model: Any) -> torch.optim.AdamW:
        decaying = optimizer.decays(model)
        named = optimizer.trained(model).items()
        return torch.optim.AdamW(
            [{"params": [p], "weight_decay": 0.1 if name in decaying else 0.0} for name, p in named], lr=1e-4
        )

    for one, other in zip(ours, updated(plain), strict=True):
        torch.testing.assert_close(one, other)
