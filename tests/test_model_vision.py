"""Vision towers: patch features of open_clip's and timm's models, without their weights."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model import config as configs
from model import vision
from model.config import ConfigError, VisionConfig

SMALL = VisionConfig(library="open_clip", name="small", pretrained=None, width=16, image_size=16)


def small_clip(config: VisionConfig) -> Any:
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    trunk: Any = VisionTransformer(16, 4, 16, 2, 2, 2.0, output_dim=8)
    torch.nn.init.normal_(trunk.ln_post.weight)
    return vision.clip_tower(trunk, config, (0.5,) * 3, (0.5,) * 3)


def test_clips_patch_tokens_with_and_without_the_last_norm() -> None:
    images = torch.randn(2, 3, 3, 16, 16)
    with_norm, without = small_clip(SMALL), small_clip(replace(SMALL, final_norm=False))
    features = without(images)
    assert features.shape == (2, 3, 16, 16)
    torch.testing.assert_close(with_norm.trunk.ln_post(features), with_norm(images))
    assert not torch.equal(with_norm(images), features)


@pytest.mark.parametrize("train", (False, True))
def test_frozen_towers_stay_frozen(train: bool) -> None:
    tower = small_clip(replace(SMALL, train=train)).train()
    assert tower.trunk.training is train
    assert all(parameter.requires_grad is train for parameter in tower.parameters())
    assert tower(torch.randn(1, 1, 3, 16, 16)).requires_grad is train


@pytest.mark.parametrize(
    ("config", "patches", "million"),
    [
        (configs.clip_vit_l14(), 256, 303),
        (configs.nfnet(0), 36, 68),
        (configs.nfnet(6), 196, 435),
        (configs.siglip(), 256, 428),
    ],
)
def test_real_architectures_have_the_configured_width(config: VisionConfig, patches: int, million: int) -> None:
    with torch.device("meta"):
        tower = vision.build(replace(config, pretrained=None), device="meta")
        features: Tensor = tower(torch.empty(2, 1, 3, config.image_size, config.image_size))
    assert features.shape == (2, 1, patches, config.width)
    assert len(tower.mean) == len(tower.std) == 3
    assert sum(p.numel() for p in tower.parameters()) / 1e6 == pytest.approx(million, rel=0.04)


def test_the_tiny_tower_runs() -> None:
    config = configs.tiny().vision
    assert vision.build(config)(torch.randn(1, 2, 3, 32, 32)).shape == (1, 2, 4, 64)
    with pytest.raises(ConfigError, match="width 64"):
        vision.build(replace(config, width=128))
    with pytest.raises(ValueError, match="M, T, 3, H, W"):
        vision.build(config)(torch.randn(2, 3, 32, 32))
