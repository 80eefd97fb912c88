"""A run's folder is gone on with by the same run alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model import config as models
from model.config import ConfigError
from train import recipes, settings
from train.config import OptimizerConfig, ParallelConfig, TrainConfig

BASE = recipes.flamingo_3b(recipes.Data(interleaved="a", pairs="b"))
FIRST, SECOND = BASE.datasets


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"steps": 7, "save_every": 3, "keep": 9, "validate_every": 2, "log_every": 1},
        {"parallel": ParallelConfig(kind="hsdp", replicas=2, recompute=True)},
        {"datasets": (replace(FIRST, path="moved"), SECOND)},
        {"model": replace(BASE.model, language=replace(BASE.model.language, name="/moved/lm"))},
    ],
)
def test_the_same_run(changes: dict[str, Any], tmp_path: Path) -> None:
    settings.keep(BASE, tmp_path)
    settings.keep(replace(BASE, **changes), tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "seed: 0 there, 1 asked for"),
        ({"optimizer": OptimizerConfig(rate=1.0)}, "optimizer.rate: 0.0001 there, 1.0"),
        ({"model": models.no_tanh_gate(BASE.model)}, "model.cross_attention.gate: True there, False"),
        ({"datasets": (FIRST,)}, "datasets.pairs.batch: 512 there, None"),
        ({"datasets": (replace(FIRST, kind=SECOND.kind), SECOND)}, "datasets.interleaved.kind.is: 'InterleavedConfig'"),
        ({"mixing": "round_robin"}, "mixing: 'accumulate' there"),
    ],
)
def test_another_run(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    settings.keep(BASE, tmp_path)
    before = (tmp_path / settings.NAME).read_bytes()
    with pytest.raises(ConfigError, match="another --output") as refused:
        settings.keep(replace(BASE, **changes), tmp_path)
    assert said in str(refused.value)
    assert (tmp_path / settings.NAME).read_bytes() == before


def test_a_folder_with_something_else(tmp_path: Path) -> None:
    (tmp_path / settings.NAME).write_text("{")
    with pytest.raises(ConfigError, match="is no configuration"):
        settings.keep(BASE, tmp_path)


def test_the_same_configuration_is_the_same_bytes(tmp_path: Path) -> None:
    made: list[TrainConfig] = [BASE, recipes.flamingo_3b(recipes.Data(interleaved="a", pairs="b"))]
    for number, config in enumerate(made):
        settings.keep(config, tmp_path / str(number))
    assert (tmp_path / "0" / settings.NAME).read_bytes() == (tmp_path / "1" / settings.NAME).read_bytes()
