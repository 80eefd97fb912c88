"""Training of the tiny CLIP: `python -m mmc4_builder.sample.train_clip --output DIR`.

It takes minutes on two CPU cores. It sees random scenes of the sample's own grammar, but none with a (kind,
colour, place) that the sample shows: `scenes.held_out` draws that line. What it learns is this toy world, and
nothing of the real one.
"""

import argparse
import io
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mmc4_builder.sample import bpe
from mmc4_builder.sample.draw import draw_scene
from mmc4_builder.sample.prose import accented, mention, small_talk
from mmc4_builder.sample.scenes import KINDS, LABELS, Scene, random_scene
from mmc4_builder.sample.unrelated import VARIANTS, draw_unrelated
from mmc4_builder.sample.words import describe

if TYPE_CHECKING:
    import torch

SIDE = 64
SHAPES = ((320, 240), (240, 320), (256, 256), (360, 240), (400, 225))
LOOKS = (*VARIANTS, "advert", "advert")  # adverts vary most
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the tiny CLIP is trained. The margins place similarities where MMC4's thresholds expect them."""

    scenes: int = 16_000
    unrelated: int = 4_000
    steps: int = 600
    batch: int = 192  # scenes a step; a third as many small-talk sentences, a fifth as many unrelated pictures
    rate: float = 2e-3
    matched_above: float = 0.45
    unmatched_below: float = 0.08
    unmatched_above: float = 0.0  # real CLIPs know next to no negative similarity, and readers count on it
    unrelated_below: float = 0.02
    merges: int = 1_200
    threads: int = 1
    seed: int = 20_190_418


def architecture(vocabulary: int) -> dict[str, Any]:
    """The model in open_clip's own JSON schema."""
    return {
        "model_cfg": {
            "embed_dim": 96,
            "vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 12, "head_width": 32},
            "text_cfg": {
                "context_length": 36,
                "vocab_size": vocabulary,
                "width": 96,
                "heads": 3,
                "layers": 2,
            },
        },
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"},
    }


def draw_pool(recipe: Recipe) -> tuple[list[Scene], "np.ndarray[Any, Any]"]:
    """Training scenes, and their pictures followed by the unrelated ones: uint8 [n, SIDE, SIDE, 3]."""
    rng = random.Random(recipe.seed)
    stand_ins = sorted(LABELS)
    scenes = [
        random_scene(rng, for_sample=False, kind=stand_ins[i % len(stand_ins)] if i % 25 == 0 else "")
        for i in range(recipe.scenes)
    ]
    pictures = np.empty((recipe.scenes + recipe.unrelated, SIDE, SIDE, 3), dtype=np.uint8)
    for i in range(len(pictures)):
        width, height = rng.choice(SHAPES)
        scale = rng.uniform(0.8, 1.6)
        size = (int(width * scale), int(height * scale))
        if i < len(scenes):
            picture = draw_scene(scenes[i], *size)
        else:
            picture = draw_unrelated(LOOKS[i % len(LOOKS)], rng.randrange(2**32), *size)
        pictures[i] = np.asarray(_as_fetched(picture, rng).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return scenes, pictures


def _as_fetched(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Through JPEG, as the image stage keeps pictures."""
    if rng.random() < 0.5:
        return picture
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=rng.randrange(50, 96))
    return Image.open(stream)


def vocabulary_text(recipe: Recipe) -> list[str]:
    rng = random.Random(recipe.seed + 1)
    sentences = [describe(random_scene(rng, for_sample=False), rng) for _ in range(4_000)]
    stand_ins = [describe(random_scene(rng, for_sample=False, kind=kind), rng) for kind in sorted(LABELS) * 50]
    return sentences + stand_ins + [small_talk(rng) for _ in range(2_000)]


def loss(image: "torch.Tensor", text: "torch.Tensor", twins: "torch.Tensor", recipe: Recipe) -> "torch.Tensor":
    """Contrastive loss on the leading square; hinges keep matched pairs high, others low but not negative.

    image [n + unrelated, d], text [n + small talk, d], both normalised; twins [n, n] marks pairs of scenes
    with one main thing, whose sentences may well fit both.
    """
    import torch
    import torch.nn.functional as F

    n, cosine = len(twins), image @ text.T
    logits, answers = 16.0 * cosine, torch.arange(n)
    contrast = F.cross_entropy(logits[:n], answers) + F.cross_entropy(logits[:, :n].T, answers)
    matched = F.relu(recipe.matched_above - cosine[:n, :n].diagonal())
    ceiling = torch.full_like(cosine, recipe.unmatched_below)
    ceiling[n:] = recipe.unrelated_below
    astray = F.relu(cosine - ceiling) + F.relu(recipe.unmatched_above - cosine)
    weight = torch.ones_like(cosine)
    weight[:n, :n] = (~twins).to(weight.dtype)
    weight[n:] = 3.0  # few rows, and a whole document's sentences to stay away from
    return contrast / 2 + 16.0 * (matched**2).mean() + 200.0 * (astray**2 * weight).mean()


def train(recipe: Recipe, output: Path) -> None:
    """Write open_clip_config.json, open_clip_model.safetensors (fp16) and bpe.txt.gz below `output`."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    output.mkdir(parents=True, exist_ok=True)
    merges = bpe.learn_merges(vocabulary_text(recipe), recipe.merges)
    bpe.write_merges(output / "bpe.txt.gz", merges)
    config = architecture(bpe.SPECIALS + len(merges))
    (output / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    for stale in output.glob("*.safetensors"):
        stale.unlink()
    model = open_clip.create_model(f"local-dir:{output}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{output}", bpe_path=str(output / "bpe.txt.gz"))
    began = time.monotonic()
    scenes, pictures = draw_pool(recipe)
    size = sum(parameter.numel() for parameter in model.parameters())
    _say(f"{len(pictures)} pictures in {time.monotonic() - began:.0f} s; {size:,} weights")
    _fit(model, tokenize, scenes, torch.from_numpy(pictures), recipe)
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, output / "open_clip_model.safetensors")
    _say(f"trained in {time.monotonic() - began:.0f} s")


def _fit(model: Any, tokenize: Any, scenes: Sequence[Scene], pictures: "torch.Tensor", recipe: Recipe) -> None:
    import torch
    import torch.nn.functional as F

    rng = random.Random(recipe.seed + 2)
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.1)
    model.train()
    for step in range(recipe.steps):
        chosen = rng.sample(range(len(scenes)), recipe.batch)
        unrelated = rng.sample(range(len(scenes), len(pictures)), recipe.batch // 5)
        sentences = [describe(scenes[i], rng) for i in chosen] + _idle(recipe.batch // 3, rng)
        batch = _augment(pictures[chosen + unrelated], generator)
        image = F.normalize(model.encode_image(batch), dim=-1)
        text = F.normalize(model.encode_text(tokenize(sentences)), dim=-1)
        mains = [(scenes[i].main.kind, scenes[i].main.colour) for i in chosen]
        twins = torch.tensor([[one == two for two in mains] for one in mains])
        error = loss(image, text, twins, recipe)
        optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == recipe.steps - 1:
            n = recipe.batch
            hit = (image[:n] @ text.T).argmax(dim=1).eq(torch.arange(n)).float().mean().item()
            _say(f"step {step} loss {error.item():.3f} own sentence first {hit:.2f}")


def _idle(count: int, rng: random.Random) -> list[str]:
    """Small talk, and now and then a thing that is named but not shown."""
    traps = [mention(rng.choice(KINDS), rng) for _ in range(count // 5)]
    foreign = [accented(rng) for _ in range(count // 16)]
    return traps + foreign + [small_talk(rng) for _ in range(count - len(traps) - len(foreign))]


def _augment(pictures: "torch.Tensor", generator: "torch.Generator") -> "torch.Tensor":
    """Normalised float [n, 3, SIDE, SIDE]: some mirrored, a few grey, all shifted and re-lit a little."""
    import torch
    import torch.nn.functional as F

    batch = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    mirrored = torch.rand(len(batch), generator=generator) < 0.5
    batch[mirrored] = batch[mirrored].flip(-1)
    grey = torch.rand(len(batch), generator=generator) < 0.04
    batch[grey] = batch[grey].mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    down, right = (int(torch.randint(0, 7, (), generator=generator)) for _ in range(2))
    batch = F.pad(batch, (3, 3, 3, 3), mode="replicate")[:, :, down : down + SIDE, right : right + SIDE]
    return batch * (0.9 + 0.2 * torch.rand(len(batch), 1, 1, 1, generator=generator))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the tiny CLIP that the package ships.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the three files of the model")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    train(Recipe(steps=options.steps, threads=options.threads), options.output)


if __name__ == "__main__":
    main()
