"""OpenFlamingo's side of the trainer's benchmark: a child of benchmarks/train.py, on its own `train_one_epoch`."""

import argparse
import sys
import types
import warnings
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from model_work import ENDOFCHUNK, IMAGE, LENGTH, PAD, SIDE, own_stdout, serve
from openflamingo_peer import build
from torch import Tensor, nn
from train_work import (
    CAPTION,
    CLIP,
    DECAY,
    DOCUMENTS,
    LAMBDAS,
    PAIRS,
    RATE,
    SHARD_UPDATES,
    SLOTS,
    UPDATES,
    WARMUP,
    Sample,
    settle,
    steady,
    update,
)  # fmt: skip


class Wrapped(nn.Module):
    """In DDP's place: OpenFlamingo asks for `.module`. It costs nothing, where DDP would."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, **given: Any) -> Any:
        return self.module(**given)


class Tokenizer:
    pad_token_id, eos_token = PAD, "<eos>"

    def batch_decode(self, ids: Tensor) -> str:
        """A batch whose loss is no number is printed and passed over: no document shows a picture in its 256 tokens."""
        return f"{len(ids)} sequences"

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [{"<image>": IMAGE, "<|endofchunk|>": ENDOFCHUNK}[text]]}


def _text(samples: list[Sample], length: int) -> tuple[Tensor, Tensor]:
    ids = torch.tensor([sample.ids + [PAD] * (length - len(sample.ids)) for sample in samples])
    return ids, (ids != PAD).long()


def _pixels(samples: list[Sample], slots: int) -> Tensor:
    """[B, slots, 3, SIDE, SIDE] as OpenFlamingo's loader gives them: floats, padded with zeros."""
    found = torch.zeros(len(samples), slots, 3, SIDE, SIDE)
    for row, sample in zip(found, samples, strict=True):
        row[: len(sample.pictures)] = sample.pictures.float() / 255
    return found


class Loader:
    """What OpenFlamingo's loaders yield, made beforehand."""

    def __init__(self, batches: list[Any], count: int = UPDATES) -> None:
        self.batches, self.num_batches = batches, count

    def __iter__(self) -> Any:
        return islice(cycle(self.batches), self.num_batches)


class Shards:
    """OpenFlamingo's own loader of documents; goes on where the last run ended."""

    num_batches = SHARD_UPDATES

    def __init__(self, folder: Path, workers: int) -> None:
        from loader_peer import documents

        self._batches = iter(documents(folder, batch=DOCUMENTS, side=SIDE, workers=workers).dataloader)
        self.tokens = 0

    def __iter__(self) -> Any:
        for images, texts in islice(self._batches, SHARD_UPDATES):
            self.tokens += sum(int(mask.sum()) for _, mask in texts)
            yield images, texts


def loaders() -> tuple[Loader, Loader]:
    pairs, documents = [], []
    for number in range(UPDATES):
        samples = update(number)
        ids, mask = _text(samples["documents"], LENGTH)
        rows = [(ids[i : i + 1], mask[i : i + 1]) for i in range(DOCUMENTS)]
        documents.append([_pixels(samples["documents"], SLOTS), rows])
        pairs.append([_pixels(samples["pairs"], 1).flatten(0, 1), _text(samples["pairs"], CAPTION)])
    return Loader(pairs), Loader(documents)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """Its two groups (open_flamingo/train/train.py)."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if "gated_cross_attn" in name], "weight_decay": DECAY},
        {"params": [p for name, p in named if "gated_cross_attn" not in name], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=RATE)


def autocast(device: torch.device, precision: str, cache_enabled: bool = True) -> Any:
    """OpenFlamingo's own knows CUDA alone, and would leave everything in fp32 on a CPU."""
    bf16 = precision == "amp_bf16"
    return partial(torch.autocast, device.type, torch.bfloat16, enabled=bf16, cache_enabled=cache_enabled)


def main() -> None:
    answers = own_stdout()
    warnings.simplefilter("ignore")
    sys.modules.setdefault("wandb", types.ModuleType("wandb"))
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("folder", type=Path)
    flags.add_argument("--threads", type=int, required=True)
    flags.add_argument("--precision", required=True)
    flags.add_argument("--device", type=torch.device, required=True)
    flags.add_argument("--workers", type=int, required=True)
    given = flags.parse_args()
    torch.set_num_threads(given.threads)
    from open_flamingo.train import train_utils

    train_utils.get_autocast = partial(autocast, given.device)

    model = Wrapped(build(given.folder)).to(given.device)
    optimizer = optimizer_of(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
    assert CLIP == 1.0  # which is written down in its loop
    args = SimpleNamespace(
        precision=given.precision, fsdp=False, fsdp_use_orig_params=False, num_epochs=1, rank=1, world_size=1,
        gradient_accumulation_steps=1, freeze_lm_embeddings=False, report_to_wandb=False, logging_steps=1 << 30,
        loss_multiplier_laion=LAMBDAS["pairs"], loss_multiplier_mmc4=LAMBDAS["documents"],
        batch_size_laion=PAIRS, batch_size_mmc4=DOCUMENTS,
    )  # fmt: skip
    pairs, documents = loaders()

    def losses() -> list[float]:
        """Of the next update's documents and pairs, to compare the two sides with."""
        found = []
        for images, (ids, mask) in ((documents.batches[0][0], _text(update(0)["documents"], LENGTH)),
                                    (pairs.batches[0][0][:, None], pairs.batches[0][1])):  # fmt: skip
            labels = ids.masked_fill((ids == PAD) | (ids == IMAGE), -100)
            batch = {"vision_x": images[:, :, None], "lang_x": ids, "attention_mask": mask, "labels": labels}
            with torch.no_grad(), autocast(given.device, given.precision)():
                found.append(float(model(**{name: values.to(given.device) for name, values in batch.items()})[0]))
        return found

    def epoch(pairs: Any, documents: Any) -> None:
        train_utils.train_one_epoch(
            args, model, 0, pairs, documents, Tokenizer(), optimizer, schedule, given.device, None
        )
        settle(given.device)

    def train_on(shards: Shards) -> dict[str, float]:
        shards.tokens = 0
        longer = Loader(pairs.batches, SHARD_UPDATES)
        spent = steady(partial(epoch, longer, shards), given.device)
        tokens = shards.tokens + sum(int(mask.sum()) for _, (_, mask) in longer)
        return spent | {"samples": (DOCUMENTS + PAIRS) * SHARD_UPDATES, "tokens": tokens}

    def job(name: str) -> Callable[[], Any]:
        if name == "losses":
            return losses
        if name == "shards":
            return partial(train_on, Shards(given.folder, given.workers))
        return partial(epoch, pairs, documents)

    serve(job, answers)


if __name__ == "__main__":
    main()
