"""Named runs: the published figures, any subset of data, and recipes of one's own."""

import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from model import config as models
from model.config import ConfigError
from train import recipes
from train.config import DatasetConfig, InterleavedConfig, PairsConfig, TrainConfig
from train.recipes import Data

ALL = Data(interleaved="a", pairs="b", videos="c")
TWO = Data(interleaved="a", pairs="b")


@pytest.mark.parametrize(
    ("name", "data", "weights", "batches"),
    [
        ("openflamingo_3b", TWO, (1.0, 0.2), (2048, 4096)),
        ("openflamingo_9b", TWO, (1.0, 0.2), (2048, 4096)),
        ("flamingo_3b", ALL, (1.0, 0.2, 0.03), (256, 512, 64)),
        ("flamingo_9b", ALL, (1.0, 0.2, 0.03), (256, 512, 64)),
    ],
)
def test_published_mixtures(name: str, data: Data, weights: tuple[float, ...], batches: tuple[int, ...]) -> None:
    made = recipes.find(name)(data)
    assert tuple(dataset.weight for dataset in made.datasets) == weights
    assert tuple(dataset.batch for dataset in made.datasets) == batches
    assert made.model == getattr(models, name)()
    assert (made.optimizer.rate, made.optimizer.weight_decay, made.optimizer.clip) == (1e-4, 0.1, 1.0)


def test_openflamingos_documents() -> None:
    kind = recipes.openflamingo_3b(TWO).datasets[0].kind
    assert kind == InterleavedConfig(tokens=256, max_images=6, min_similarity=0.24, min_bytes=11_000, window="start")
    assert recipes.openflamingo_3b(TWO).datasets[1].kind == PairsConfig(tokens=32, leading_space=0.0)


def test_the_papers_documents() -> None:
    kind = recipes.flamingo_3b(ALL).datasets[0].kind
    assert isinstance(kind, InterleavedConfig)
    assert (kind.max_images, kind.look_ahead, kind.window, kind.order) == (5, 0.5, "random", "dom")


@pytest.mark.parametrize("data", (Data(interleaved="a"), Data(pairs="b"), Data(videos="c"), ALL))
def test_any_subset_of_datasets(data: Data) -> None:
    names = [dataset.name for dataset in recipes.flamingo_3b(data).datasets]
    assert names == [name for name in ("interleaved", "pairs", "videos") if getattr(data, name)]


def test_no_videos_without_time() -> None:
    with pytest.raises(ConfigError, match="--videos"):
        recipes.openflamingo_3b(ALL)


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    """As the module's documentation has it."""
    example = recipes.__doc__.split("\n\n", 1)[1]  # type: ignore[union-attr]
    path = tmp_path / "my.py"
    path.write_text(textwrap.dedent(example))
    made = recipes.find(f"{path}:mine")(TWO)
    assert made == replace(
        recipes.openflamingo_3b(TWO), model=models.no_tanh_gate(models.openflamingo_3b()), mixing="round_robin"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("openflamingo_33b", "neither one of tiny, openflamingo_3b"),
        ("nowhere.py:mine", "there is no file nowhere.py"),
        (f"{__file__}:nothing", "has no function nothing"),
    ],
)
def test_unknown_recipes(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        recipes.find(name)


def test_another_language_model_says_its_own_sizes(tmp_path: Path) -> None:
    from small_flamingos import language_model
    from training_tokens import tokenizer

    language_model("gpt2").config.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    made = recipes.with_language(models.flamingo_3b(), str(tmp_path)).language
    assert (made.layers, made.width, made.vocab_size, made.name) == (4, 32, len(tokenizer()), str(tmp_path))
    with pytest.raises(ConfigError, match="--lm no/such/model"):
        recipes.with_language(models.flamingo_3b(), "no/such/model")


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"batch": 0}, "batch must be"), ({"weight": 0.0}, "weight must be"), ({"held_out": 1}, "held_out must be")],
)
def test_datasets_that_cannot_be(changes: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(DatasetConfig(name="a", path="x", kind=PairsConfig(), batch=1), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"datasets": ()}, "at least one dataset"),
        ({"datasets": recipes.openflamingo_3b(TWO).datasets * 2}, "names of their own"),
        ({"steps": 0}, "steps must be"),
        ({"keep": 0}, "keep must be"),
    ],
)
def test_runs_that_cannot_be(changes: dict[str, object], said: str) -> None:
    made: TrainConfig = recipes.openflamingo_3b(TWO)
    with pytest.raises(ConfigError, match=said):
        replace(made, **changes)  # type: ignore[arg-type]
