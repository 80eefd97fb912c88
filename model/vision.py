"""Vision encoders as towers: images in, patch features out. CLIP and SigLIP through open_clip, NFNet through timm."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model.config import ConfigError, VisionConfig
from model.layers import merge_heads, split_heads

Fit = Literal["crop", "pad", "squash"]
"""How a picture comes to a square: its middle alone, all of it with a margin, or all of it out of proportion."""

LOCAL = "local-dir:"
"""open_clip's prefix for a folder with open_clip_config.json and weights."""
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
_FITS: dict[str, Fit] = {"shortest": "crop", "longest": "pad", "squash": "squash"}  # open_clip's resize_mode


class VisionTower(nn.Module):
    """[M, T, 3, H, W] to patch features [M, T, S, d]. Frozen towers keep no graph and stay in evaluation mode.

    `image_size`, `fit`, `mean` and `std` say how images must come: this side, as the encoder was trained, and
    (x - mean) / std of values in 0..1.
    """

    fit: Fit = "crop"

    def __init__(self, trunk: nn.Module, config: VisionConfig, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(config.train)
        self.frozen = not config.train
        self.width, self.image_size = config.width, config.image_size
        self.mean, self.std = mean, std
        self.train(self.training)

    def train(self, mode: bool = True) -> "VisionTower":
        super().train(mode and not self.frozen)
        return self

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 5:
            raise ValueError(f"images have shape [M, T, 3, H, W], not {list(images.shape)}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            found = self.features(images.flatten(0, 1))
        return found.view(*images.shape[:2], *found.shape[1:])

    def features(self, frames: Tensor) -> Tensor:
        """[K, 3, H, W] to [K, S, d]."""
        raise NotImplementedError

    @cached_property
    def frame(self) -> tuple[int, int]:
        """Patches of one frame, and floating-point operations for it: counted by torch on tensors without data.

        To be asked once before the tower is sharded, as one that is would be gathered to be counted.
        """
        weights = {name: t.detach().to("meta") for name, t in (*self.named_parameters(), *self.named_buffers())}
        size = self.image_size
        image = torch.empty(1, 1, 3, size, size, device="meta", dtype=next(iter(weights.values())).dtype)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            features: Tensor = torch.func.functional_call(self, weights, (image,))
        return features.shape[2], counter.get_total_flops()


class ClipTower(VisionTower):
    """open_clip's own VisionTransformer: patch tokens without the class token."""

    def features(self, frames: Tensor) -> Tensor:
        _, tokens = self.trunk(frames)
        out: Tensor = tokens
        return out


class ResNetTower(VisionTower):
    """open_clip's own ResNet: what its attention pooling gives at every place, where CLIP keeps the first alone.

    The first is CLIP's vector of the whole image; the others are of the last grid's places, row by row, in the same
    space. There, other than in the grid itself, what a picture shows lies in directions that text was aligned with.
    """

    def features(self, frames: Tensor) -> Tensor:
        trunk: Any = self.trunk
        x = trunk.stem(frames)
        for layer in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
            x = layer(x)
        return _pooled_at_all_places(trunk.attnpool, x.flatten(2).transpose(1, 2))


def _pooled_at_all_places(pool: Any, grid: Tensor) -> Tensor:
    """[K, S, d] to [K, 1 + S, D], by open_clip's attention pooling, whose heads and projections these are."""
    x = torch.cat([grid.mean(1, keepdim=True), grid], dim=1)
    x = x + pool.positional_embedding.to(x.dtype)
    q, k, v = (split_heads(project(x), pool.num_heads) for project in (pool.q_proj, pool.k_proj, pool.v_proj))
    found: Tensor = pool.c_proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))
    return found


class TimmTower(VisionTower):
    """A timm model: NFNet's last grid, or a ViT's tokens without its prefix (class and register tokens)."""

    def features(self, frames: Tensor) -> Tensor:
        trunk: Any = self.trunk
        found: Tensor = trunk.forward_features(frames)
        if found.ndim == 4:  # [K, d, h, w]
            return found.flatten(2).transpose(1, 2)
        return found[:, getattr(trunk, "num_prefix_tokens", 0) :]


def build(config: VisionConfig, *, device: str = "cpu") -> VisionTower:
    """The tower that the configuration names. Weights come from a file or from the library's own hub.

    A `local-dir:FOLDER` of open_clip brings its weights along; `pretrained` says nothing about it.
    """
    return _from_open_clip(config, device) if config.library == "open_clip" else _from_timm(config, device)


def _checked(width: int | None, config: VisionConfig) -> None:
    if width is not None and width != config.width:
        raise ConfigError(f"{config.name} has features of width {width}, the configuration says {config.width}")


def _from_open_clip(config: VisionConfig, device: str) -> VisionTower:
    import open_clip

    _check_folder(config.name)
    model = open_clip.create_model(
        config.name, pretrained=config.pretrained, device=device,
        force_quick_gelu=config.quick_gelu, force_image_size=config.image_size,
    )  # fmt: skip
    visual: Any = model.visual
    mean, std = (tuple(visual.preprocess_cfg[key]) for key in ("mean", "std"))
    if hasattr(visual, "trunk"):  # a timm model inside, as SigLIP is; its pooling and projection are not needed
        _checked(getattr(visual.trunk, "num_features", None), config)
        tower: VisionTower = TimmTower(visual.trunk, config, mean, std)
    elif hasattr(visual, "attnpool"):
        tower = resnet_tower(visual, config, mean, std)
    else:
        tower = clip_tower(visual, config, mean, std)
    tower.fit = _FITS[visual.preprocess_cfg["resize_mode"]]
    return tower


def _check_folder(name: str) -> None:
    """open_clip goes on with random weights where it finds none."""
    folder = Path(name.removeprefix(LOCAL))
    if not name.startswith(LOCAL):
        return
    if not (folder / "open_clip_config.json").is_file():
        raise ConfigError(f"{name}: there is no open_clip_config.json in {folder}; name a folder as open_clip saves it")
    if not any(found for pattern in _WEIGHTS for found in folder.glob(pattern)):
        raise ConfigError(f"{name}: there are no weights in {folder}; put open_clip_model.safetensors there")


def resnet_tower(visual: Any, config: VisionConfig, mean: tuple[float, ...], std: tuple[float, ...]) -> VisionTower:
    """A tower of an open_clip ModifiedResNet, which it takes over. A side of its grid is 1/32 of the image's."""
    _checked(int(visual.attnpool.c_proj.out_features), config)
    if config.image_size % 32:
        raise ConfigError(f"{config.name}: image_size must be a multiple of 32, not {config.image_size}")
    return ResNetTower(visual, config, mean, std)


def clip_tower(visual: Any, config: VisionConfig, mean: tuple[float, ...], std: tuple[float, ...]) -> VisionTower:
    """A tower of an open_clip VisionTransformer, which it takes over."""
    _checked(int(visual.conv1.out_channels), config)
    visual.output_tokens = True
    if not config.final_norm:
        visual.ln_post = nn.Identity()
    visual.proj = None  # the pooled output is not used
    return ClipTower(visual, config, mean, std)


def _from_timm(config: VisionConfig, device: str) -> VisionTower:
    import timm

    # Only transformers are built for one size of image; convolutions take any.
    size = {"img_size": config.image_size} if "vit" in config.name else {}
    trunk: Any = timm.create_model(config.name, pretrained=config.pretrained is not None, num_classes=0, **size)
    _checked(getattr(trunk, "num_features", None), config)
    return TimmTower(trunk.to(device), config, tuple(trunk.pretrained_cfg["mean"]), tuple(trunk.pretrained_cfg["std"]))
