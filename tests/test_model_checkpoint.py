"""What is saved is what is not somebody else's, and it loads only beside what it was trained with."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_flamingos import flamingo
from torch import Tensor

from model import config as configs
from model.checkpoint import (
    METADATA,
    CheckpointError,
    config_from,
    fingerprint,
    identities,
    load,
    own_state,
    read_config,
    save,
)
from model.config import FlamingoConfig
from model.flamingo import Flamingo

pytest.importorskip("transformers")


def trained(config: FlamingoConfig | None = None) -> Flamingo:
    """A model whose new parts are not as they were made."""
    model: Flamingo = flamingo("llama", config, gates=0.5)
    with torch.no_grad():
        for tensor in own_state(model).values():
            tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)))
    return model


def state_of(model: Flamingo) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c,
        configs.train_language,
        configs.train_vision,
        lambda c: replace(c, language=replace(c.language, train_new_tokens=False)),
    ],
    ids=["frozen", "language", "vision", "new_tokens_frozen"],
)
def test_save_and_load_are_exact(tmp_path: Path, change: Any) -> None:
    config = change(configs.tiny())
    model = trained(config)
    save(model, tmp_path / "model.safetensors")
    other: Flamingo = flamingo("llama", config)
    load(other, tmp_path / "model.safetensors")
    expected = state_of(model)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in other.state_dict().items())
    assert read_config(tmp_path / "model.safetensors") == config


def test_frozen_weights_are_not_saved(tmp_path: Path) -> None:
    from safetensors import safe_open

    model = trained()
    save(model, tmp_path / "model.safetensors", notes={"step": "12"})
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names, about = set(file.keys()), json.loads(file.metadata()[METADATA])
    assert not [name for name in names if name.startswith(("lm.", "vision."))]
    assert names == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert about["notes"] == {"step": "12"}
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_other_frozen_weights_are_refused_unless_allowed(tmp_path: Path) -> None:
    save(trained(), tmp_path / "model.safetensors")
    other: Flamingo = flamingo("llama", seed=9)
    with pytest.raises(CheckpointError, match="frozen language: trained beside"):
        load(other, tmp_path / "model.safetensors")
    load(other, tmp_path / "model.safetensors", same_frozen=False)


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path: Path) -> None:
    save(trained(), tmp_path / "model.safetensors")
    config = configs.every_nth(configs.tiny(), 2)
    other: Flamingo = flamingo("llama", replace(config, resampler=replace(config.resampler, latents=5)))
    before = state_of(other)
    with pytest.raises(CheckpointError) as caught:
        load(other, tmp_path / "model.safetensors")
    for line in (
        "cross_attention.every: 1 in the checkpoint, 2 in the model",
        "resampler.latents: [4, 32] in the checkpoint, [5, 32] in the model",
        "unexpected: blocks.2.attention.norm.weight",
    ):
        assert line in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize("make", [configs.openflamingo_9b, configs.flamingo_80b, configs.tiny])
def test_configurations_come_back_from_json(make: Any) -> None:
    assert config_from(asdict(make())) == make()


def test_an_unknown_field_is_named() -> None:
    values = asdict(configs.tiny())
    values["vision"]["colour"] = "blue"
    with pytest.raises(CheckpointError, match="colour"):
        config_from(values)


def test_the_same_model_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(trained(), tmp_path / name, notes={"step": "12", "loss": "1.5"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("content", (None, b"", b"\xff" * 64))
def test_a_file_that_is_none_of_ours(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="a.safetensors cannot be read"):
        read_config(path)


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="format None"):
        read_config(tmp_path / "a.safetensors")


def test_fingerprints_tell_models_and_not_precisions_apart() -> None:
    first, same, other = flamingo("opt"), flamingo("opt"), flamingo("opt", seed=1)
    assert fingerprint(first.lm) == fingerprint(same.lm.bfloat16()) != fingerprint(other.lm)
    assert set(identities(first)) == {"language", "vision"}
    assert not identities(flamingo("opt", configs.train_language(configs.train_vision(configs.tiny()))))
