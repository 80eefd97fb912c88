"""Parameter counts of the named configurations, on the meta device, and where layers stand."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from model import config as configs
from model.config import ConfigError, FlamingoConfig
from model.cross_attention import CrossAttentionBlock, GraftedBlock, VanillaBlock
from model.resampler import Resampler


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def resampler_size(config: FlamingoConfig) -> int:
    with torch.device("meta"):
        return count(Resampler(config.resampler, config.vision.width))


def block_size(config: FlamingoConfig) -> int:
    kinds = {"gated_dense": CrossAttentionBlock, "vanilla": VanillaBlock, "grafting": GraftedBlock}
    cross = config.cross_attention
    with torch.device("meta"):
        return count(kinds[cross.kind](cross, config.language.width, config.resampler.width))


@pytest.mark.parametrize(
    ("config", "blocks", "trainable"),
    [
        # OpenFlamingo counts the whole table of a model whose new rows it trains.
        (configs.openflamingo_3b(), 24, 1_046_992_944 - 50_280 * 2_048),
        (configs.openflamingo_3b_instruct(), 24, 1_046_992_944 - 50_280 * 2_048),
        (configs.openflamingo_4b(), 16, 960_763_936),
        (configs.openflamingo_4b_instruct(), 16, 960_763_936),
        (configs.openflamingo_9b(), 8, 1_178_834_960),
    ],
)
def test_openflamingo_counts(config: FlamingoConfig, blocks: int, trainable: int) -> None:
    assert resampler_size(config) == 63_019_008
    layers = config.cross_attention.layers(config.language.layers)
    assert len(layers) == blocks
    assert resampler_size(config) + blocks * block_size(config) == trainable
    assert config.language.vocab_size + config.language.new_tokens == 50_280


@pytest.mark.parametrize(
    ("config", "blocks", "millions"),
    [(configs.flamingo_3b(), 24, 48.23), (configs.flamingo_9b(), 10, 180.4), (configs.flamingo_80b(), 12, 696.3)],
)
def test_published_flamingo_counts(config: FlamingoConfig, blocks: int, millions: float) -> None:
    assert len(config.cross_attention.layers(config.language.layers)) == blocks
    assert block_size(config) / 1e6 == pytest.approx(millions, abs=0.06)
    assert resampler_size(config) / 1e6 == pytest.approx(193.6, abs=0.1)


@pytest.mark.parametrize(
    ("variant", "billions"),
    [
        (lambda c: c, 3.2), (configs.vanilla_cross_attention, 2.4), (configs.grafting, 3.3),
        (configs.single_in_the_middle, 2.0), (lambda c: configs.every_nth(c, 4), 2.3),
        (lambda c: configs.every_nth(c, 2), 2.6), (configs.mlp_resampler, 3.2), (configs.transformer_resampler, 3.2),
    ],
)  # fmt: skip
def test_ablations_have_the_published_sizes(variant: object, billions: float) -> None:
    config = variant(configs.flamingo_3b())  # type: ignore[operator]
    cross = config.cross_attention
    blocks = cross.graft_layers if cross.kind == "grafting" else len(cross.layers(24))
    total = 1.4e9 + 0.435e9 + resampler_size(config) + blocks * block_size(config)
    assert total / 1e9 == pytest.approx(billions, abs=0.08)  # printed in tenths, some cut and not rounded: 2.08 is 2.0


def test_placement() -> None:
    cross = replace(configs.tiny().cross_attention, every=4)
    assert cross.layers(12) == (0, 4, 8)
    assert replace(cross, placement="last").layers(12) == (3, 7, 11)
    assert replace(cross, placement="middle").layers(12) == (6,)
    with pytest.raises(ConfigError, match="not 0"):
        configs.every_nth(configs.tiny(), 0)
