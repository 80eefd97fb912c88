"""What a Flamingo is made of: frozen dataclasses, the named configurations, and the paper's ablations as functions."""

from dataclasses import dataclass, field, replace
from typing import Literal

Activation = Literal["gelu", "squared_relu"]


class ConfigError(ValueError):
    """A value that cannot be, or parts that do not fit together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionConfig:
    """The vision encoder, whose patch features the resampler reads."""

    library: Literal["open_clip", "timm"]
    name: str
    pretrained: str | None  # open_clip's tag or a file; None: random weights. timm: anything, its tag is in the name.
    width: int  # of a patch feature
    image_size: int
    quick_gelu: bool = False  # OpenAI's CLIP was trained with x * sigmoid(1.702 x)
    # Whether patch features pass the tower's last LayerNorm. open_clip gave them without it until version 2.22, which
    # is what OpenFlamingo trained on, and gives them with it since 2.24.
    final_norm: bool = True
    train: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResamplerConfig:
    """From any number of patch features to a fixed number of visual tokens. Facts: paper A.1.1 and Table 4."""

    kind: Literal["perceiver", "mlp", "transformer"] = "perceiver"
    width: int = 1536
    depth: int = 6
    heads: int = 16
    head_dim: int = 128
    latents: int = 64
    latents_std: float = 0.02  # at the start (Perceiver); at OpenFlamingo's 1 they drown what comes from the image
    ff_mult: int = 4
    activation: Activation = "squared_relu"
    frames: int = 8  # learnt time embeddings; more frames interpolate them; 0: none, and one frame an image


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossAttentionConfig:
    """The layers that let text see, and where they stand."""

    kind: Literal["gated_dense", "vanilla", "grafting"] = "gated_dense"
    # first: before layers 0, n, 2n... (paper); last: n-1, 2n-1... (OpenFlamingo); middle: one, before layer L // 2.
    placement: Literal["first", "last", "middle"] = "first"
    every: int = 1
    heads: int = 16
    head_dim: int = 128
    ff_mult: int = 4
    activation: Activation = "squared_relu"
    gate: bool = True  # tanh(a); False multiplies by one
    gate_start: float = 0.0  # a at the start; above zero a short run sees sooner, and begins beside the language model
    media_norm: bool = True  # LayerNorm of the visual tokens before keys and values
    ff_on_empty_rows: bool = True  # feed-forward for tokens that see no image; attention is zero for them in any case
    see_all_previous: bool = False  # all images so far rather than the last one: ask masking.visible for it
    graft_layers: int = 20  # grafting only: 20 make the published 3.3B

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f"every must be at least 1, not {self.every}")

    def layers(self, total: int) -> tuple[int, ...]:
        """Which of the language model's layers are conditioned."""
        if self.kind == "grafting":
            return ()
        if self.placement == "middle":
            return (total // 2,)
        start = 0 if self.placement == "first" else self.every - 1
        return tuple(range(start, total, self.every))


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageConfig:
    """The language model. `layers` and `width` are checked against it."""

    name: str | None  # for AutoModelForCausalLM; None: no public model has this shape, bring your own
    layers: int
    width: int
    vocab_size: int  # tokens before the new ones: the first new token has this id
    new_tokens: int = 2
    train_new_tokens: bool = True
    train: bool = False
    pretrained: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FlamingoConfig:
    """All of it. A variant is a function that returns `replace(...)` of one."""

    vision: VisionConfig
    resampler: ResamplerConfig = field(default_factory=ResamplerConfig)
    cross_attention: CrossAttentionConfig = field(default_factory=CrossAttentionConfig)
    language: LanguageConfig


# Vision encoders


def clip_vit_l14(*, final_norm: bool = True) -> VisionConfig:
    return VisionConfig(
        library="open_clip", name="ViT-L-14", pretrained="openai", width=1024, image_size=224,
        quick_gelu=True, final_norm=final_norm,
    )  # fmt: skip


def nfnet(size: int = 6) -> VisionConfig:
    """NFNet-F0...F6 with DeepMind's supervised ImageNet weights: no contrastive NFNet is public."""
    sizes = (192, 224, 256, 320, 384, 416, 448)
    if not 0 <= size < len(sizes):
        raise ConfigError(f"NFNet sizes are 0 to 6, not {size}")
    name = f"dm_nfnet_f{size}.dm_in1k"
    return VisionConfig(library="timm", name=name, pretrained="dm_in1k", width=3072, image_size=sizes[size])


def siglip() -> VisionConfig:
    return VisionConfig(
        library="open_clip", name="ViT-SO400M-14-SigLIP", pretrained="webli", width=1152, image_size=224
    )


# Flamingo as published: the frozen Chinchillas are not public, so the language model is to be brought along.


def flamingo_3b() -> FlamingoConfig:
    return _flamingo(layers=24, width=2048, every=1)


def flamingo_9b() -> FlamingoConfig:
    return _flamingo(layers=40, width=4096, every=4)


def flamingo_80b() -> FlamingoConfig:
    return _flamingo(layers=80, width=8192, every=7)


def _flamingo(*, layers: int, width: int, every: int) -> FlamingoConfig:
    return FlamingoConfig(
        vision=nfnet(6),
        cross_attention=CrossAttentionConfig(every=every, heads=width // 128),
        language=LanguageConfig(name=None, layers=layers, width=width, vocab_size=32_000),
    )


# OpenFlamingo as released


def openflamingo_3b() -> FlamingoConfig:
    return _openflamingo("anas-awadalla/mpt-1b-redpajama-200b", layers=24, width=2048, every=1, train_new_tokens=True)


def openflamingo_3b_instruct() -> FlamingoConfig:
    name = "anas-awadalla/mpt-1b-redpajama-200b-dolly"
    return _openflamingo(name, layers=24, width=2048, every=1, train_new_tokens=True)


def openflamingo_4b() -> FlamingoConfig:
    name = "togethercomputer/RedPajama-INCITE-Base-3B-v1"
    return _openflamingo(name, layers=32, width=2560, every=2, train_new_tokens=False)


def openflamingo_4b_instruct() -> FlamingoConfig:
    name = "togethercomputer/RedPajama-INCITE-Instruct-3B-v1"
    return _openflamingo(name, layers=32, width=2560, every=2, train_new_tokens=False)


def openflamingo_9b() -> FlamingoConfig:
    return _openflamingo("anas-awadalla/mpt-7b", layers=32, width=4096, every=4, train_new_tokens=True)


def _openflamingo(name: str, *, layers: int, width: int, every: int, train_new_tokens: bool) -> FlamingoConfig:
    return FlamingoConfig(
        vision=clip_vit_l14(final_norm=False),
        resampler=ResamplerConfig(width=1024, heads=8, head_dim=64, latents_std=1.0, activation="gelu", frames=0),
        cross_attention=CrossAttentionConfig(
            placement="last", every=every, heads=8, head_dim=64, activation="gelu", media_norm=False
        ),
        # All three tokenizers are GPT-NeoX's 50,277 pieces; <|endofchunk|>, <image> and <PAD> follow.
        language=LanguageConfig(
            name=name, layers=layers, width=width, vocab_size=50_277, new_tokens=3, train_new_tokens=train_new_tokens
        ),
    )


def tiny() -> FlamingoConfig:
    """Small enough for a laptop's tests; the language model is to be brought along."""
    return FlamingoConfig(
        vision=VisionConfig(library="timm", name="test_vit", pretrained=None, width=64, image_size=32),
        resampler=ResamplerConfig(width=32, depth=2, heads=2, head_dim=16, latents=4, frames=4),
        cross_attention=CrossAttentionConfig(heads=2, head_dim=16),
        language=LanguageConfig(name=None, layers=4, width=32, vocab_size=96),
    )


# Ablations: rows of the paper's Table 3 that concern the model


def no_tanh_gate(config: FlamingoConfig) -> FlamingoConfig:
    return replace(config, cross_attention=replace(config.cross_attention, gate=False))


def vanilla_cross_attention(config: FlamingoConfig) -> FlamingoConfig:
    """Cross-attention between self-attention and feed-forward of the frozen layer, without a new feed-forward."""
    return replace(config, cross_attention=replace(config.cross_attention, kind="vanilla"))


def grafting(config: FlamingoConfig, *, layers: int = 20) -> FlamingoConfig:
    """New self- and cross-attention layers on the untouched language model's output."""
    return replace(config, cross_attention=replace(config.cross_attention, kind="grafting", graft_layers=layers))


def every_nth(config: FlamingoConfig, n: int) -> FlamingoConfig:
    return replace(config, cross_attention=replace(config.cross_attention, every=n))


def single_in_the_middle(config: FlamingoConfig) -> FlamingoConfig:
    return replace(config, cross_attention=replace(config.cross_attention, placement="middle"))


def see_all_previous_images(config: FlamingoConfig) -> FlamingoConfig:
    return replace(config, cross_attention=replace(config.cross_attention, see_all_previous=True))


def mlp_resampler(config: FlamingoConfig) -> FlamingoConfig:
    return replace(config, resampler=replace(config.resampler, kind="mlp"))


def transformer_resampler(config: FlamingoConfig) -> FlamingoConfig:
    return replace(config, resampler=replace(config.resampler, kind="transformer"))


def with_vision(config: FlamingoConfig, vision: VisionConfig) -> FlamingoConfig:
    return replace(config, vision=vision)


def train_vision(config: FlamingoConfig, *, pretrained: bool = True) -> FlamingoConfig:
    tag = config.vision.pretrained if pretrained else None
    return replace(config, vision=replace(config.vision, train=True, pretrained=tag))


def train_language(config: FlamingoConfig, *, pretrained: bool = True) -> FlamingoConfig:
    return replace(config, language=replace(config.language, train=True, pretrained=pretrained))
