"""Small training runs: a loader of made-up batches, a configuration, and processes to run them in."""

import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rank_processes import one_thread, ranks, start
from small_flamingos import IMAGE, VOCABULARY, flamingo

from model import config as configs
from model import masking
from train.batch import Batch
from train.config import DatasetConfig, InterleavedConfig, OptimizerConfig, PairsConfig, TrainConfig
from train.distributed import Place, joined
from train.trainer import Result, Run, train

LENGTH, SLOTS = 12, 2


def row(key: str) -> dict[str, Any]:
    """One made-up sequence: its ids, the numbers of its images, its targets; all of it from its key alone."""
    rng = random.Random(key)
    ids = [rng.randrange(3, VOCABULARY) for _ in range(LENGTH)]
    places = sorted(rng.sample(range(LENGTH - 2), rng.randint(0, SLOTS)))
    for place in places:
        ids[place] = IMAGE
    masked = rng.randint(0, LENGTH - 4)
    labels = [-100 if place < masked or token == IMAGE else token for place, token in enumerate(ids)]
    images = [
        torch.tensor(rng.choices(range(256), k=3 * 16 * 16), dtype=torch.uint8).view(1, 3, 16, 16) for _ in places
    ]
    return {"ids": ids, "labels": labels, "images": images, "key": key}


def batch_of(keys: Sequence[str]) -> Batch:
    rows = [row(key) for key in keys]
    ids = torch.tensor([one["ids"] for one in rows])
    slots = torch.full((len(rows), SLOTS), -1)
    images: list[torch.Tensor] = []
    for index, one in enumerate(rows):
        for slot, image in enumerate(one["images"]):
            slots[index, slot] = len(images)
            images.append(image)
    return Batch(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        labels=torch.tensor([one["labels"] for one in rows]),
        phi=masking.visible(ids, IMAGE),
        image_rows=slots,
        images=torch.stack(images) if images else torch.zeros(0, 1, 3, 16, 16, dtype=torch.uint8),
        keys=tuple((key,) for key in keys),
    )


class Made:
    """A loader: rows of update u are the same for any number of ranks."""

    def __init__(self, name: str, batch: int, *, rank: int = 0, world: int = 1, micro: int = 0, at: int = 0) -> None:
        self.name, self.batch, self.rank, self.world, self.micro, self.at = name, batch, rank, world, micro, at

    def __iter__(self) -> Iterator[tuple[Batch, ...]]:
        while True:
            first, end = (self.batch * r // self.world for r in (self.rank, self.rank + 1))
            keys = [f"{self.name}-{self.at}-{index}" for index in range(first, end)]
            size = self.micro or max(1, len(keys))
            self.at += 1
            yield tuple(batch_of(keys[start : start + size]) for start in range(0, len(keys), size))

    def state(self) -> Mapping[str, Any]:
        return {"update": self.at}

    def resume(self, states: Sequence[Mapping[str, Any]]) -> None:
        (self.at,) = {state["update"] for state in states}


def tiny_run(**changes: Any) -> TrainConfig:
    """Two datasets, 9 updates, checkpoints every 3."""
    settings: dict[str, Any] = {
        "model": configs.tiny(),
        "datasets": (
            DatasetConfig(name="documents", path="-", kind=InterleavedConfig(), batch=4),
            DatasetConfig(name="pairs", path="-", kind=PairsConfig(), batch=6, weight=0.2),
        ),
        "steps": 9,
        "optimizer": OptimizerConfig(rate=1e-2, warmup=4),
        "save_every": 3,
        "validate_every": 6,
        "log_every": 1,
    }
    return TrainConfig(**settings | changes)


def loaders_of(config: TrainConfig, place: Place, *, micro: int = 0) -> dict[str, Made]:
    return {d.name: Made(d.name, d.batch, rank=place.rank, world=place.world, micro=micro) for d in config.datasets}


def go(config: TrainConfig, output: Path, place: Place, *, family: str = "llama", **changes: Any) -> Result:
    """Train a small Flamingo here."""
    model = flamingo(family, config.model, gates=0.5)
    loaders = changes.pop("loaders", None) or loaders_of(config, place)
    validate = changes.pop("validate", None)
    with open(os.devnull, "w") as nowhere:
        settings: dict[str, Any] = {"writers": "none", "stream": nowhere} | changes
        return train(config, model, loaders, Run(output=output, place=place, **settings), validate)


def alone(config: TrainConfig, output: Path, **changes: Any) -> Result:
    with joined("cpu") as place:
        return go(config, output, place, **changes)


def lines(output: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, without what a killed process left half written."""
    found = []
    for line in (output / "metrics.jsonl").read_text().splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def losses(output: Path) -> dict[int, Any]:
    """What each update gave; of an update that was made twice, the last."""
    return {line["step"]: (line["loss"], line["gradient_norm"]) for line in lines(output) if "loss" in line}


__all__ = [
    "losses",
    "lines",
    "start",
    "one_thread",
    "row",
    "Made",
    "alone",
    "batch_of",
    "go",
    "loaders_of",
    "ranks",
    "replace",
    "tiny_run",
]
