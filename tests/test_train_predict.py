"""What a run is said to take before it starts."""

from dataclasses import replace

import pytest
import torch
from small_flamingos import flamingo

from model import config as models
from model.flops import Batch, flops_per_batch
from train import predict
from train.config import DatasetConfig, InterleavedConfig, PairsConfig, ParallelConfig, TrainConfig

CPU = torch.device("cpu")
INTERLEAVED = DatasetConfig(name="a", path="x", kind=InterleavedConfig(tokens=64, max_images=3), batch=8)
PAIRS = DatasetConfig(name="b", path="y", kind=PairsConfig(tokens=16), batch=16)


def config(**changes: object) -> TrainConfig:
    made = TrainConfig(model=models.tiny(), datasets=(INTERLEAVED, PAIRS), steps=100)
    return replace(made, **changes)  # type: ignore[arg-type]


def predicted(made: TrainConfig, world: int = 1) -> predict.Prediction:
    return predict.predict(made, flamingo(config=models.tiny()), world=world, device=CPU)


def test_operations_of_an_update_are_those_of_its_batches() -> None:
    model = flamingo(config=models.tiny())
    expected = [
        flops_per_batch(model, Batch(sequences=8, tokens=64, slots=3, images=24)).total,
        flops_per_batch(model, Batch(sequences=16, tokens=16, slots=1, images=16)).total,
    ]
    assert predicted(config()).flops == sum(expected)
    assert predicted(config(mixing="round_robin")).flops == sum(expected) // 2


def test_weights_are_counted_by_what_becomes_of_them() -> None:
    model = flamingo(config=models.tiny())
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert predicted(config()).weights == 4 * frozen + 16 * trained
    sharded = ParallelConfig(kind="fsdp", bf16=True)
    assert predicted(config(parallel=sharded), 4).weights == 2 * frozen + 16 * trained // 4
    everything = replace(sharded, frozen="shard")
    assert predicted(config(parallel=everything), 4).weights == 2 * frozen // 4 + 16 * trained // 4
    hybrid = replace(everything, kind="hsdp", replicas=2)
    assert predicted(config(parallel=hybrid), 4).weights == 2 * frozen // 2 + 16 * trained // 2


@pytest.mark.parametrize(
    "less", (ParallelConfig(recompute=True), ParallelConfig(bf16=True), ParallelConfig(micro_batch=2))
)
def test_what_saves_activations(less: ParallelConfig) -> None:
    assert predicted(config(parallel=less)).activations < predicted(config()).activations


def test_time_is_operations_over_what_the_device_does() -> None:
    made = predict.Prediction(flops=10**12, rate=2e9, world=5, steps=360, weights=3 << 30, activations=1 << 29)
    assert made.seconds == 36_000
    text = made.to_text()
    assert all(part in text for part in ("10h00m", "360 updates", "5 processes", "3.00 GiB", "0.50 GiB", "1.000 TFLOP"))
    assert predicted(config()).rate > 1e8
