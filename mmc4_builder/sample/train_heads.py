"""Training of the tiny CLIP's two heads: `python -m mmc4_builder.sample.train_heads --output DIR`.

It takes about two minutes on one CPU core. Like the tiny CLIP itself they see scenes of the sample's grammar, and
none with a (kind, colour, place) that the sample shows. What they find is the sample's stand-ins: a striped sign
for nudity, smiling discs for faces.
"""

import argparse
import hashlib
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmc4_builder import clip, face_labels
from mmc4_builder.sample.draw import draw_scene
from mmc4_builder.sample.scenes import LABELS, random_scene
from mmc4_builder.sample.train_clip import LOOKS, SHAPES
from mmc4_builder.sample.train_clip import _as_fetched as as_fetched
from mmc4_builder.sample.unrelated import draw_unrelated

if TYPE_CHECKING:
    import torch

STAND_IN_COLOURS = ("red", "orange", "yellow", "pink")  # what else has them is most easily mistaken
KINDS = {label: kind for kind, label in LABELS.items()}
WIDTHS = (64, 512, 256, 1)  # of the released classifier's layers
MAX_SCORE = 0.1  # MMC4 §3
HELD_OUT = 0.2  # of the pictures, by which the network is calibrated
NAMES = ("dense", "dense1", "dense2", "dense3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the heads are trained."""

    each: int = 1_200  # pictures of each stand-in
    scenes: int = 2_400
    lookalikes: int = 4_800  # scenes in a colour of the stand-ins
    unrelated: int = 1_000
    steps: int = 1_000
    batch: int = 256
    rate: float = 2e-3
    faces_recall: float = 0.98
    threads: int = 1
    seed: int = 20_230_414  # of the pictures
    noise: float = 0.02  # on every number of a vector while the network learns
    start: int = 2  # of the network; most others take one scene of the sample for its stand-in, this one none


def draw(recipe: Recipe) -> Iterator[tuple[str, Image.Image]]:
    """(label, picture) of everything that there is to learn from."""
    rng = random.Random(recipe.seed)
    counts = {"face": recipe.each, "nsfw_standin": recipe.each, "scene": recipe.scenes}
    counts |= {"lookalike": recipe.lookalikes, "unrelated": recipe.unrelated}
    for label, count in counts.items():
        for _ in range(count):
            width, height = rng.choice(SHAPES)
            scale = rng.uniform(0.8, 1.6)
            yield label, as_fetched(_picture(label, (int(width * scale), int(height * scale)), rng), rng)


def _picture(label: str, size: tuple[int, int], rng: random.Random) -> Image.Image:
    if label == "unrelated":
        return draw_unrelated(rng.choice(LOOKS), rng.randrange(2**32), *size)
    scene = random_scene(rng, for_sample=False, kind=KINDS.get(label, ""))
    while label == "lookalike" and scene.main.colour not in STAND_IN_COLOURS:
        scene = random_scene(rng, for_sample=False)
    return draw_scene(scene, *size)


def embed(recipe: Recipe, model: clip.Clip) -> tuple[npt.NDArray[np.float32], list[str], list[str]]:
    """Vectors [n, dim], labels, and names of the pictures, which stand in for their SHA-256."""
    pairs = list(draw(recipe))
    vectors = model.embed_images([picture for _, picture in pairs])
    names = [hashlib.sha256(f"{recipe.seed} {number}".encode()).hexdigest() for number in range(len(pairs))]
    return vectors, [label for label, _ in pairs], names


def network(dim: int) -> Any:
    """The released classifier's architecture, with its key names, for vectors of `dim` numbers."""
    from collections import OrderedDict

    from torch import nn

    parts: list[tuple[str, Any]] = [("norm", nn.BatchNorm1d(dim, eps=0.0))]
    for number, (name, inputs, outputs) in enumerate(zip(NAMES, (dim, *WIDTHS), WIDTHS, strict=False)):
        parts.append((name, nn.Linear(inputs, outputs)))
        parts.append((f"relu{number or ''}" if outputs > 1 else "sigmoid", nn.ReLU() if outputs > 1 else nn.Sigmoid()))
    return nn.Sequential(OrderedDict(parts))


def fit_nsfw(vectors: npt.NDArray[np.float32], is_nsfw: npt.NDArray[np.bool_], recipe: Recipe) -> Any:
    """State of the network, fp16, trained to tell the rows where `is_nsfw`."""
    import torch
    import torch.nn.functional as F

    torch.manual_seed(recipe.start)
    generator = torch.Generator().manual_seed(recipe.start)
    rows, answers = torch.from_numpy(vectors), torch.from_numpy(is_nsfw)
    held_out = torch.rand(len(rows), generator=generator) < HELD_OUT
    seen, labels = rows[~held_out], answers[~held_out].float()
    model = _normalising(network(vectors.shape[1]), seen)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.steps)
    for _ in range(recipe.steps):
        chosen = torch.randint(len(seen), (recipe.batch,), generator=generator)
        noise = recipe.noise * torch.randn(len(chosen), seen.shape[1], generator=generator)
        error = F.binary_cross_entropy(model(F.normalize(seen[chosen] + noise, dim=-1))[:, 0], labels[chosen])
        optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    _calibrate(model, rows[held_out], answers[held_out])
    state = model.state_dict()
    return {key: value.half() if value.is_floating_point() else value for key, value in state.items()}


def _calibrate(model: Any, rows: "torch.Tensor", is_nsfw: "torch.Tensor") -> None:
    """Move the last bias so that MMC4's threshold lies midway between the two classes, on rows not trained on."""
    import torch

    with torch.no_grad():
        logits = model[:-1](rows)[:, 0]
        low, high = logits[is_nsfw].quantile(0.01), logits[~is_nsfw].quantile(0.999)
        model.dense3.bias += math.log(MAX_SCORE / (1 - MAX_SCORE)) - (low + high) / 2
        _say(f"classes end at logits {high.item():.1f} and {low.item():.1f}")


def _normalising(model: Any, rows: "torch.Tensor") -> Any:
    """With the mean and variance of all rows in its first layer: torch trains none whose eps is 0."""
    model.norm.running_mean.copy_(rows.mean(dim=0))
    model.norm.running_var.copy_(rows.var(dim=0))
    model.norm.eval()
    return model


def train(recipe: Recipe, output: Path) -> None:
    """Write nsfw.safetensors and faces.json below `output`."""
    from safetensors.torch import save_file

    output.mkdir(parents=True, exist_ok=True)
    model = clip.load(clip.TINY, device="cpu", threads=recipe.threads)
    vectors, labels, names = embed(recipe, model)
    is_nsfw = np.array([label == "nsfw_standin" for label in labels], dtype=np.bool_)
    weights = output / "nsfw.safetensors"
    save_file(fit_nsfw(vectors, is_nsfw, recipe), weights)
    weights.chmod(0o644)  # safetensors lets nobody else read it
    head, report = face_labels.fit(
        vectors,
        [label == "face" for label in labels],
        names,
        clip=model.identity.name,
        clip_sha256=model.identity.sha256,
        recall=recipe.faces_recall,
    )
    (output / "faces.json").write_text(head.to_json(), encoding="utf-8")
    _say(f"{len(labels)} pictures; faces:\n{report.to_text()}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the heads of the tiny CLIP that the package ships.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the two files")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    train(Recipe(threads=options.threads), options.output)


if __name__ == "__main__":
    main()
