"""What a training run is made of: frozen dataclasses. A variant is a function that returns `replace(...)` of one."""

from dataclasses import dataclass, field
from typing import Literal

from model.config import ConfigError, FlamingoConfig

Labels = Literal["openflamingo", "paper"]
"""Which tokens are predicted; see train/labels.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterleavedConfig:
    """Documents with pictures between their sentences, as `mmc4-build` writes them."""

    tokens: int = 256  # of a sequence (paper A.3.2; OpenFlamingo)
    max_images: int = 5  # of one document in a sequence: 5 in the paper, 6 in OpenFlamingo
    min_similarity: float = 0.24  # of a picture to its sentence; OpenFlamingo's threshold, for CLIP ViT-L/14
    min_bytes: int = 0  # of a picture's file; OpenFlamingo leaves out those up to 10,999
    order: Literal["clip", "dom"] = "clip"  # a picture's sentence: by bipartite matching, or where the page has it
    after: float = 0.0  # chance that a document's pictures stand after their sentences, drawn for each document
    window: Literal["random", "start"] = "random"  # which tokens of a longer document: the paper's, OpenFlamingo's
    packed: bool = False  # several documents in a sequence, until it is full
    keep_single: float = 0.5  # chance to keep what has one image only (OpenFlamingo)
    look_ahead: float = 0.0  # p_next: chance that a document's text sees the next image (paper A.3.2: 0.5)
    labels: Labels = "openflamingo"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsConfig:
    """Pictures with captions: tars as img2dataset writes them (`key.jpg`, `key.txt`, `key.json`)."""

    tokens: int = 32
    leading_space: float = 0.5  # chance of a space before the caption (paper B.1.2)
    labels: Labels = "openflamingo"


@dataclass(frozen=True, slots=True, kw_only=True)
class VideosConfig:
    """Videos with captions: tars with `key.mp4` (or another container) and `key.txt`."""

    tokens: int = 32
    frames: int = 8
    fps: float = 1.0  # frames a second that are looked at
    leading_space: float = 0.5
    labels: Labels = "openflamingo"


Kind = InterleavedConfig | PairsConfig | VideosConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """One member of the mixture."""

    name: str
    path: str  # a build's folder, a folder or pattern of tars, or of docs zips beside a folder of pictures
    kind: Kind
    weight: float = 1.0  # lambda: of its mean loss in the sum
    batch: int  # sequences an update, over all ranks: the same stream whatever their number
    held_out: int = 0  # every n-th sample is kept from training, for validation; 0: none

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"{self.name}: batch must be at least 1, not {self.batch}")
        if self.weight <= 0:
            raise ConfigError(f"{self.name}: weight must be positive, not {self.weight}")
        if self.held_out < 0 or self.held_out == 1:
            raise ConfigError(f"{self.name}: held_out must be 0 or at least 2, not {self.held_out}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesConfig:
    """How pictures come to the vision encoder's size, which is the model's to say."""

    fit: Literal["crop", "pad", "squash"] = "crop"  # pad: keep all, with the mean colour around it (paper)
    flip: float = 0.5  # chance of a mirror image
    colour: bool = False  # jitter of brightness, contrast, saturation and hue (paper; OpenFlamingo dropped it)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW; a linear warm-up, then a constant rate (paper B.1.2)."""

    rate: float = 1e-4
    warmup: int = 5000
    weight_decay: float = 0.1  # of cross-attention's matrices alone
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0  # global norm, once an update


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelConfig:
    """How the model lies on devices."""

    kind: Literal["ddp", "fsdp", "hsdp"] = "ddp"  # with one process there is nothing to do
    frozen: Literal["replicate", "shard"] = "replicate"  # fsdp and hsdp: gathering frozen weights each time costs
    replicas: int = 1  # hsdp: groups that each hold the whole model
    bf16: bool = False  # frozen weights and arithmetic; what is trained keeps fp32 masters
    recompute: bool = False  # activations in the backward pass
    compile: bool = False  # torch.compile for each block
    micro_batch: int = 0  # sequences of a dataset on a device at once; 0: all that the device has of an update


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """All of it."""

    model: FlamingoConfig
    datasets: tuple[DatasetConfig, ...]
    steps: int  # updates
    mixing: Literal["accumulate", "round_robin"] = "accumulate"
    images: ImagesConfig = field(default_factory=ImagesConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    seed: int = 0
    save_every: int = 1000  # updates
    keep: int = 3  # checkpoints
    validate_every: int = 1000
    log_every: int = 10

    def __post_init__(self) -> None:
        names = [dataset.name for dataset in self.datasets]
        if not names:
            raise ConfigError("a run needs at least one dataset")
        if len(set(names)) < len(names):
            raise ConfigError(f"datasets need names of their own: {', '.join(names)}")
        if self.steps < 1:
            raise ConfigError(f"steps must be at least 1, not {self.steps}")
        for name in ("save_every", "keep", "validate_every", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
