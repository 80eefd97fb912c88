"""Vision encoders as towers: images in, patch features out. CLIP and SigLIP through open_clip, NFNet through timm."""

from typing import Any

import torch
from torch import Tensor, nn

from model.config import ConfigError, VisionConfig


class VisionTower(nn.Module):
    """[M, T, 3, H, W] to patch features [M, T, S, d]. Frozen towers keep no graph and stay in evaluation mode.

    `image_size`, `mean` and `std` say how images must come: this side, and (x - mean) / std of values in 0..1.
    """

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


class ClipTower(VisionTower):
    """open_clip's own VisionTransformer: patch tokens without the class token."""

    def features(self, frames: Tensor) -> Tensor:
        _, tokens = self.trunk(frames)
        out: Tensor = tokens
        return out


class TimmTower(VisionTower):
    """A timm model: NFNet's last grid, or a ViT's tokens without its prefix (class and register tokens)."""

    def features(self, frames: Tensor) -> Tensor:
        trunk: Any = self.trunk
        found: Tensor = trunk.forward_features(frames)
        if found.ndim == 4:  # [K, d, h, w]
            return found.flatten(2).transpose(1, 2)
        return found[:, getattr(trunk, "num_prefix_tokens", 0) :]


def build(config: VisionConfig, *, device: str = "cpu") -> VisionTower:
    """The tower that the configuration names. Weights come from a file or from the library's own hub."""
    tower = _from_open_clip(config, device) if config.library == "open_clip" else _from_timm(config, device)
    found = getattr(tower.trunk, "num_features", None) if isinstance(tower, TimmTower) else None
    if found is not None and found != config.width:
        raise ConfigError(f"{config.name} has features of width {found}, the configuration says {config.width}")
    return tower


def _from_open_clip(config: VisionConfig, device: str) -> VisionTower:
    import open_clip

    model = open_clip.create_model(
        config.name, pretrained=config.pretrained, device=device,
        force_quick_gelu=config.quick_gelu, force_image_size=config.image_size,
    )  # fmt: skip
    visual: Any = model.visual
    mean, std = (tuple(visual.preprocess_cfg[key]) for key in ("mean", "std"))
    if hasattr(visual, "trunk"):  # a timm model inside, as SigLIP is; its pooling and projection are not needed
        return TimmTower(visual.trunk, config, mean, std)
    return clip_tower(visual, config, mean, std)


def clip_tower(visual: Any, config: VisionConfig, mean: tuple[float, ...], std: tuple[float, ...]) -> VisionTower:
    """A tower of an open_clip VisionTransformer, which it takes over."""
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
    return TimmTower(trunk.to(device), config, tuple(trunk.pretrained_cfg["mean"]), tuple(trunk.pretrained_cfg["std"]))
