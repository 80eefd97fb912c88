"""What a run will take, said before its first step: hours and memory, by formula."""

import time
from dataclasses import dataclass

import torch
from torch import nn

from mmc4_builder.progress import clock_time
from model.flamingo import Flamingo
from model.flops import Batch, flops_per_batch
from train.config import DatasetConfig, InterleavedConfig, TrainConfig, VideosConfig

ADAM_BYTES = 16  # of a trained fp32 parameter: itself, its gradient, two moments
ACTIVATION_BYTES = 34  # of a token in one layer, times the width, in 16 bits and without attention's scores
"""Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", section 4, less what a fused
attention never stores."""
MATRIX = {"cpu": 1024, "cuda": 8192}
SECONDS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Of one process, where figures are of one."""

    flops: int  # of an update, over all processes; every image slot counted as filled
    rate: float  # operations a second that a matrix product gets on this device
    world: int
    steps: int
    weights: int  # bytes
    activations: int  # bytes

    @property
    def seconds(self) -> float:
        return self.flops * self.steps / (self.rate * self.world)

    def to_text(self) -> str:
        gib = 1 << 30
        return (
            f"{self.flops / 1e12:,.3f} TFLOP an update at most, {self.steps:,} updates, {self.world} process"
            f"{'es' if self.world > 1 else ''} at {self.rate / 1e12:,.2f} TFLOP/s in a matrix product: "
            f"{clock_time(self.seconds)} of arithmetic, and two to three times as long in practice. "
            f"Memory a process: about {self.weights / gib:.2f} GiB of weights, gradients and moments, "
            f"{self.activations / gib:.2f} GiB of activations"
        )


def predict(config: TrainConfig, model: Flamingo, *, world: int, device: torch.device) -> Prediction:
    """Before anything is moved or sharded."""
    shapes = [_shape(dataset, dataset.batch) for dataset in config.datasets]
    flops = [flops_per_batch(model, shape).total for shape in shapes]
    together = config.mixing == "accumulate"
    return Prediction(
        flops=sum(flops) if together else sum(flops) // len(flops),
        rate=_matrix_rate(device, bf16=config.parallel.bf16),
        world=world,
        steps=config.steps,
        weights=_weights(config, model, world),
        activations=max(_activations(config, model, dataset, world) for dataset in config.datasets),
    )


def _shape(dataset: DatasetConfig, sequences: int) -> Batch:
    kind = dataset.kind
    slots = kind.max_images if isinstance(kind, InterleavedConfig) else 1
    frames = kind.frames if isinstance(kind, VideosConfig) else 1
    return Batch(sequences=sequences, tokens=kind.tokens, slots=slots, images=sequences * slots, frames=frames)


def _weights(config: TrainConfig, model: nn.Module, world: int) -> int:
    parallel = config.parallel
    shards = 1 if parallel.kind == "ddp" else max(1, world // parallel.replicas)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad) * (2 if parallel.bf16 else 4)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad) * ADAM_BYTES
    return frozen // (shards if parallel.frozen == "shard" else 1) + trained // shards


def _activations(config: TrainConfig, model: Flamingo, dataset: DatasetConfig, world: int) -> int:
    """Of one micro-batch: what each layer keeps for the backward pass, and logits with their gradient in fp32."""
    language, parallel = config.model.language, config.parallel
    mine = max(1, dataset.batch // world)
    sequences = min(mine, parallel.micro_batch or mine)
    tokens = sequences * dataset.kind.tokens
    size = 1 if parallel.bf16 else 2
    layers = language.layers + len(model.blocks)
    kept = 2 if parallel.recompute else ACTIVATION_BYTES
    logits = tokens * (language.vocab_size + language.new_tokens) * (4 + 4 + 2 * size)
    return tokens * language.width * layers * kept * size + logits


def _matrix_rate(device: torch.device, *, bf16: bool) -> float:
    """Operations a second of a large matrix product, measured for a moment."""
    side = MATRIX.get(device.type, 1024)
    dtype = torch.bfloat16 if bf16 and device.type != "cpu" else torch.float32
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    matrix @ matrix
    done, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < SECONDS:
        matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        done += 1
    return 2 * side**3 * done / spent
