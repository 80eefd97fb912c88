"""Training of the tiny language model: `python -m mmc4_builder.sample.train_lm --output DIR`.

It takes minutes on one CPU core. It reads pages in the sample's own grammar: small talk, and sentences about random
scenes, but none with a (kind, colour, place) that the sample shows. So it knows how such sentences go, and cannot
know which thing, colour or place comes next: that is in the picture.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmc4_builder.sample.prose import accented, mention, small_talk
from mmc4_builder.sample.scenes import KINDS, random_scene
from mmc4_builder.sample.words import describe

if TYPE_CHECKING:
    import torch

END = "<|endoftext|>"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
WIDEST = 512  # tokens that the model is made for


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the tiny language model is trained."""

    pieces: int = 1_200  # of the vocabulary
    width: int = 128
    layers: int = 4
    heads: int = 4
    steps: int = 500
    batch: int = 16  # sequences a step
    tokens: int = 128  # of a sequence
    rate: float = 4e-3
    described: float = 0.45  # share of sentences about a scene
    pages: int = 3_000  # that the vocabulary is learnt from
    threads: int = 1
    seed: int = 20_220_429


def sentence(rng: random.Random, recipe: Recipe, *, for_sample: bool = False) -> str:
    """About a scene of the training side, or of the sample's; or about nothing that a picture shows."""
    if rng.random() < recipe.described:
        return describe(random_scene(rng, for_sample=for_sample), rng)
    chance = rng.random()
    if chance < 0.06:
        return mention(rng.choice(KINDS), rng)
    return accented(rng) if chance < 0.1 else small_talk(rng)


def page(rng: random.Random, recipe: Recipe) -> str:
    """Sentences as a page has them. In some there is nothing between two, as where a tag stood between them."""
    joint = "" if rng.random() < 0.2 else " "
    return joint.join(sentence(rng, recipe) for _ in range(rng.choice((1, 2, 4, 8, 12))))


def train_tokenizer(recipe: Recipe) -> Any:
    """A byte-level BPE, which can spell any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.pieces,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    rng = random.Random(recipe.seed)
    tokenizer.train_from_iterator([page(rng, recipe) for _ in range(recipe.pages)], trainer)
    return tokenizer


def architecture(recipe: Recipe, end: int) -> dict[str, Any]:
    """The model in transformers' own JSON schema. It computes in fp32, however the file keeps its weights."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": recipe.pieces,
        "hidden_size": recipe.width,
        "intermediate_size": 3 * recipe.width,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "num_key_value_heads": recipe.heads,
        "max_position_embeddings": WIDEST,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": None,
        "torch_dtype": "float32",
    }


def sequences(tokenizer: Any, recipe: Recipe) -> Iterator[list[int]]:
    """Pages without end, cut every `recipe.tokens` tokens."""
    rng, end, left = random.Random(recipe.seed + 1), tokenizer.token_to_id(END), list[int]()
    while True:
        left += [*tokenizer.encode(page(rng, recipe)).ids, end]
        while len(left) >= recipe.tokens:
            yield left[: recipe.tokens]
            left = left[recipe.tokens :]


def train(recipe: Recipe, output: Path) -> None:
    """Write `FILES` below `output`: what `from_pretrained` reads, weights in fp16."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    tokenizer = train_tokenizer(recipe)
    tokenizer.save(str(output / "tokenizer.json"))
    _write_json(output / "tokenizer_config.json", _tokenizer_config())
    _write_json(output / "config.json", architecture(recipe, tokenizer.token_to_id(END)))
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(AutoConfig.from_pretrained(output))
    size = sum(parameter.numel() for parameter in model.parameters())
    _say(f"{tokenizer.get_vocab_size()} pieces in {time.monotonic() - began:.0f} s; {size:,} weights")
    _fit(model, sequences(tokenizer, recipe), recipe)
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    del weights["lm_head.weight"]  # the table of the embeddings once more
    save_file(weights, output / "model.safetensors", metadata={"format": "pt"})
    (output / "model.safetensors").chmod(0o644)  # safetensors lets nobody else read it
    _say(f"trained in {time.monotonic() - began:.0f} s")


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "model_max_length": WIDEST,
        "clean_up_tokenization_spaces": False,
    }


def _fit(model: Any, rows: Iterator[list[int]], recipe: Recipe) -> None:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.1)
    model.train()
    for step in range(recipe.steps):
        error = loss(model, torch.tensor(list(islice(rows, recipe.batch))))
        optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == recipe.steps - 1:
            _say(f"step {step} loss {error.item():.3f}")


def loss(model: Any, ids: "torch.Tensor") -> "torch.Tensor":
    """Mean negative log-likelihood of tokens [n, length] but the first of each row."""
    import torch.nn.functional as F

    logits = model(ids).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the tiny language model that the package ships.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the four files of the model")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    train(Recipe(steps=options.steps, threads=options.threads), options.output)


if __name__ == "__main__":
    main()
