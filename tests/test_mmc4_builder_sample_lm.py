"""The tiny language model: small, whole, and knowing the sample's grammar without having read the sample."""

import itertools
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmc4_builder.sample import train_lm
from mmc4_builder.sample.prose import small_talk
from mmc4_builder.sample.scenes import held_out, random_scene
from mmc4_builder.sample.words import describe

WEIGHTS = Path(train_lm.__file__).parent / "weights" / "lm"


def loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def shipped() -> tuple[Any, Any]:
    torch.set_num_threads(1)
    return loaded(WEIGHTS)


def nats_a_token(shipped: tuple[Any, Any], say: Callable[[random.Random], str], *, count: int = 60) -> float:
    """Mean over sentences that stand alone, from their first token on."""
    model, tokenizer = shipped
    rng, total, tokens = random.Random(7), 0.0, 0
    for _ in range(count):
        ids = [tokenizer.eos_token_id, *tokenizer(say(rng))["input_ids"]]
        with torch.no_grad():
            total += float(train_lm.loss(model, torch.tensor([ids]))) * (len(ids) - 1)
        tokens += len(ids) - 1
    return total / tokens


def test_the_folder_is_small_and_whole_and_names_no_place() -> None:
    assert sorted(path.name for path in WEIGHTS.iterdir()) == sorted(train_lm.FILES)
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 3_000_000
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        text = (WEIGHTS / name).read_text()
        json.loads(text)
        assert "_name_or_path" not in text and not re.search(r'"(/[\w.-]+){2,}', text)


def test_it_loads_as_any_language_model_does(shipped: tuple[Any, Any]) -> None:
    model, tokenizer = shipped
    assert type(model).__name__ == "LlamaForCausalLM"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    recipe = train_lm.Recipe()
    assert (model.config.vocab_size, len(tokenizer), model.config.hidden_size) == (recipe.pieces,) * 2 + (recipe.width,)
    assert tokenizer.eos_token == train_lm.END and model.config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.bos_token_id is None
    for text in ("A tiny red boat sails out at sea.", "日本語 “naïve” \t\n\U0001f600", " two  spaces "):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_it_knows_the_grammar_and_not_what_is_in_the_picture(shipped: tuple[Any, Any]) -> None:
    """A model that knew nothing would have log 1200 = 7.1. What is left is what a sentence's author chose freely."""
    unseen = nats_a_token(shipped, lambda rng: describe(random_scene(rng, for_sample=True), rng))
    trained_on = nats_a_token(shipped, lambda rng: describe(random_scene(rng, for_sample=False), rng))
    assert unseen < 1.4
    assert abs(unseen - trained_on) < 0.1  # it has not learnt which combinations were kept from it
    assert nats_a_token(shipped, small_talk) < 0.85


def test_training_reads_nothing_that_the_sample_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes: list[Any] = []

    def noted(scene: Any, rng: random.Random) -> str:
        scenes.append(scene)
        return describe(scene, rng)

    monkeypatch.setattr(train_lm, "describe", noted)
    recipe = small()
    list(itertools.islice(train_lm.sequences(train_lm.train_tokenizer(recipe), recipe), 50))
    assert len(scenes) > 1000
    assert not any(held_out(scene.main.kind, scene.main.colour, scene.place) for scene in scenes)


def small() -> train_lm.Recipe:
    return train_lm.Recipe(pieces=400, width=32, layers=1, heads=2, steps=3, batch=2, tokens=32, pages=400, threads=1)


def test_training_runs_and_runs_alike(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        train_lm.train(small(), tmp_path / folder)
    for name in train_lm.FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    model, tokenizer = loaded(tmp_path / "one")
    assert model(torch.tensor([tokenizer("A boat.")["input_ids"]])).logits.isfinite().all()


def test_the_shipped_tokenizer_is_the_recipes() -> None:
    made = json.loads(train_lm.train_tokenizer(train_lm.Recipe()).to_str())
    shipped = json.loads((WEIGHTS / "tokenizer.json").read_text())
    assert made["model"]["vocab"] == shipped["model"]["vocab"]
    assert made["model"]["merges"] == shipped["model"]["merges"]


def test_what_is_shipped_is_what_the_recipe_describes() -> None:
    recipe = train_lm.Recipe()
    assert json.loads((WEIGHTS / "config.json").read_text()) == train_lm.architecture(recipe, 0)
