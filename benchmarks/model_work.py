"""What the model's benchmark gives both sides to do: the sizes, the batches, and a child that times on demand.

Both sides are processes of one tree, because OpenFlamingo needs a transformers of 2023. The parent writes the name of a
job on a child's stdin and reads one line of JSON from its stdout: never do two children work at once.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

VOCABULARY, ENDOFCHUNK, IMAGE, PAD, TOKENS = 8000, 8000, 8001, 8002, 8003
SIZES = {
    "small": ({"d_model": 512, "n_layers": 8, "n_heads": 8},
              {"image_size": 112, "layers": 6, "width": 384, "head_width": 64, "patch_size": 14}),
    "tiny": ({"d_model": 128, "n_layers": 4, "n_heads": 4},
             {"image_size": 64, "layers": 4, "width": 128, "head_width": 32, "patch_size": 16}),
    "openflamingo_3b": ({"d_model": 2048, "n_layers": 24, "n_heads": 16},
                        {"image_size": 224, "layers": 24, "width": 1024, "head_width": 64, "patch_size": 14}),
}  # fmt: skip
"""An MPT and a ViT: in about the proportions of OpenFlamingo-3B, small enough for one core; of about the size that
`mmc4-train --config tiny` trains on a laptop; and of OpenFlamingo-3B itself, its large vocabulary apart, for a GPU."""
SIZE = "MMC4_BENCHMARK_SIZE"  # in the environment, for both sides
_language, VISION = SIZES[os.environ.get(SIZE, "small")]
LANGUAGE = {"vocab_size": 8064, "max_seq_len": 2048} | _language
VISION_WIDTH, SIDE = VISION["width"], VISION["image_size"]
TEXT = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
EVERY = 1
LENGTH, SLOTS = 256, 6
TRAINING = {"full": (6, 6, 6, 6), "mmc4": (5, 3, 2, 2)}
"""Images in each sequence. OpenFlamingo makes six of them with blank ones. What is left of MMC4's released documents
after its own rules (similarity 0.24, six images, 256 tokens) has 2.9 on average: 1 in 10 %, 2 in 36 %, 3 in 34 %."""
NEW_TOKENS, BEAMS, PROMPTS = 20, 3, 1
SHOT = 12  # tokens of text after each image


def _ids(generator: torch.Generator, count: int) -> list[int]:
    return [int(token) for token in torch.randint(3, VOCABULARY, (count,), generator=generator)]


def pictures(count: int, generator: torch.Generator) -> Tensor:
    """[count, 1, 3, SIDE, SIDE]"""
    return torch.randn(count, 1, 3, SIDE, SIDE, generator=generator)


def training_batch(images: tuple[int, ...]) -> dict[str, Tensor]:
    """input_ids and labels [B, LENGTH], and pictures padded to SLOTS with zeros, [B, SLOTS, 1, 3, SIDE, SIDE]."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for count in images:
        gap = LENGTH // count
        row = _ids(generator, LENGTH)
        for image in range(count):
            row[image * gap] = IMAGE
        rows.append(row)
    ids = torch.tensor(rows)
    padded = torch.zeros(len(images), SLOTS, 1, 3, SIDE, SIDE)
    for row, count in enumerate(images):
        padded[row, :count] = pictures(count, generator)
    return {"input_ids": ids, "labels": ids.masked_fill(ids == IMAGE, -100), "pictures": padded}


def prompt_batch(shots: int) -> dict[str, Tensor]:
    """input_ids [PROMPTS, L] of `shots` finished chunks and one to finish; no picture is shown twice."""
    generator = torch.Generator().manual_seed(shots)
    rows = []
    for _ in range(PROMPTS):
        row = [chunk for _ in range(shots) for chunk in (IMAGE, *_ids(generator, SHOT), ENDOFCHUNK)]
        rows.append([*row, IMAGE, *_ids(generator, 2)])
    ids = torch.tensor(rows)
    shown = pictures(PROMPTS * (shots + 1), generator).unflatten(0, (PROMPTS, shots + 1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pictures": shown}


GENERATION: Mapping[str, Any] = {
    "max_new_tokens": NEW_TOKENS,
    "min_new_tokens": NEW_TOKENS,
    "num_beams": BEAMS,
    "length_penalty": 0.0,
    "do_sample": False,
    "pad_token_id": PAD,
    "eos_token_id": ENDOFCHUNK,
    "suppress_tokens": [IMAGE, PAD],
}
JOBS = {"train full": 4 * LENGTH, "train mmc4": 4 * LENGTH} | {
    f"generate {shots}": PROMPTS * NEW_TOKENS for shots in (4, 32)
}
"""Each job and the tokens that it trains on or writes."""


def weights(folder: Path) -> dict[str, Path]:
    return {part: folder / f"{part}.pt" for part in ("checkpoint", "language", "vision")}


def serve(jobs: Callable[[str], Callable[[], Any]], answers: TextIO) -> None:
    """Run the jobs asked for on stdin, each prepared once and timed every time."""
    prepared: dict[str, Callable[[], Any]] = {}
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        name = line.strip()
        run = prepared.setdefault(name, jobs(name)) if name not in prepared else prepared[name]
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        result = run()
        spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        print(json.dumps({**spent, "result": result}), file=answers, flush=True)


def own_stdout() -> TextIO:
    """This process's stdout for answers alone; what libraries print goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    return answers
