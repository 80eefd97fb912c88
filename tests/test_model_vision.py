"""Vision towers: patch features of open_clip's and timm's models, without their weights."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model import config as configs
from model import vision
from model.config import ConfigError, VisionConfig

TINY = Path(vision.__file__).parents[1] / "mmc4_builder" / "sample" / "weights" / "tiny"
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


def tiny_clip(folder: Path = TINY, **changes: Any) -> VisionConfig:
    config = VisionConfig(library="open_clip", name=f"local-dir:{folder}", pretrained=None, width=96, image_size=64)
    return replace(config, **changes)


def test_the_shipped_clips_first_place_is_clips_own_vector() -> None:
    import open_clip

    tower = vision.build(tiny_clip())
    images = torch.randn(2, 3, 3, 64, 64)
    features = tower(images)
    assert features.shape == (2, 3, 5, 96) and (tower.mean, tower.std, tower.fit) == ((0.5,) * 3, (0.5,) * 3, "squash")
    visual: Any = open_clip.create_model(tiny_clip().name).visual.eval()
    with torch.no_grad():
        torch.testing.assert_close(features[:, :, 0].flatten(0, 1), visual(images.flatten(0, 1)))
    assert features[:, :, 1:].std(dim=2).min() > 0


def test_a_frozen_resnet_keeps_its_statistics_and_no_graph() -> None:
    tower = vision.build(tiny_clip()).train()
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    assert not tower(torch.randn(2, 1, 3, 64, 64)).requires_grad
    for name, value in tower.state_dict().items():
        assert torch.equal(value, before[name])
    trained = vision.build(tiny_clip(train=True)).train()
    assert trained(torch.randn(2, 1, 3, 64, 64)).requires_grad


def test_a_resnet_that_does_not_fit_is_refused() -> None:
    from open_clip.modified_resnet import ModifiedResNet

    with pytest.raises(ConfigError, match="width 96, the configuration says 384"):
        vision.build(tiny_clip(width=384))
    odd: Any = ModifiedResNet([1, 1, 1, 1], 96, 12, image_size=72, width=12)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="multiple of 32, not 72"):
        vision.resnet_tower(odd, tiny_clip(image_size=72), (0.5,) * 3, (0.5,) * 3)


def test_a_folder_without_weights_is_no_random_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no open_clip_config.json"):
        vision.build(tiny_clip(tmp_path / "nowhere"))
    config = json.loads((TINY / "open_clip_config.json").read_text())
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="no weights"):
        vision.build(tiny_clip(tmp_path))


@pytest.mark.parametrize(("mode", "fit"), [("shortest", "crop"), ("longest", "pad"), ("squash", "squash")])
def test_towers_say_how_pictures_must_be_fitted(mode: str, fit: str, tmp_path: Path) -> None:
    config = json.loads((TINY / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["resize_mode"] = mode
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_model.safetensors").symlink_to(TINY / "open_clip_model.safetensors")
    assert vision.build(tiny_clip(tmp_path)).fit == fit


def test_a_vit_of_another_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="width 16, the configuration says 32"):
        small_clip(replace(SMALL, width=32))
