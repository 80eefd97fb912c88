"""What the trainer's benchmark gives both sides to train on: the samples of an update, made once.

One document to two pairs, as OpenFlamingo mixes them. Documents fill their 256 tokens; captions have 17 on average,
which is LAION's median. OpenFlamingo pads captions to 32 tokens and documents to six images.
"""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from loader_work import cpu_seconds
from model_work import ENDOFCHUNK, IMAGE, LENGTH, SIDE, VOCABULARY
from torch import Tensor

OF_UPDATE = "MMC4_BENCHMARK_DOCUMENTS"  # in the environment, for both sides
DOCUMENTS = int(os.environ.get(OF_UPDATE, "4"))
PAIRS = 2 * DOCUMENTS
IMAGES = (5, 3, 2, 2) * (DOCUMENTS // 4)  # of each document, as in model_work
CAPTION, SLOTS = 32, 6
UPDATES, SHARD_UPDATES = 2, 8  # in a timed run
LAMBDAS = {"documents": 1.0, "pairs": 0.2}
RATE, WARMUP, DECAY, CLIP = 1e-4, 100, 0.1, 1.0


def settle(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def steady(work: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """What it costs in all processes, loading ones too: what they fetch ahead is ready before, and again after."""
    time.sleep(1)
    cpu, wall = cpu_seconds(), time.perf_counter()
    work()
    settle(device)
    wall = time.perf_counter() - wall
    time.sleep(1)
    return {"cpu": cpu_seconds() - cpu, "wall": wall}


@dataclass(frozen=True)
class Sample:
    ids: list[int]
    pictures: Tensor  # uint8 [images, 3, SIDE, SIDE]


def _pictures(rng: random.Random, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


def _words(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(3, VOCABULARY) for _ in range(count)]


def _document(rng: random.Random, images: int) -> Sample:
    ids: list[int] = []
    for index in range(images):
        end = LENGTH * (index + 1) // images
        ids += [IMAGE, *_words(rng, end - len(ids) - 2), ENDOFCHUNK]
    return Sample(ids, _pictures(rng, images))


def _pair(rng: random.Random) -> Sample:
    return Sample([IMAGE, *_words(rng, rng.randint(6, 28)), ENDOFCHUNK], _pictures(rng, 1))


def update(number: int) -> dict[str, list[Sample]]:
    """The samples of an update, by dataset."""
    rng = random.Random(number)
    return {
        "documents": [_document(rng, images) for images in IMAGES],
        "pairs": [_pair(rng) for _ in range(PAIRS)],
    }
