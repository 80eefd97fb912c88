"""Checkpoints: whole or not there, the newest few, and read back as they were."""

import json
import pickletools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_flamingos import flamingo
from training_runs import one_thread  # noqa: F401

from model import checkpoint as files
from model import config as configs
from train import optimizer as optimizers
from train.checkpoints import CheckpointError, Checkpoints, export, latest
from train.config import OptimizerConfig
from train.distributed import joined

pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    with joined("cpu"):
        yield


def made(seed: int = 0, config: Any = None) -> tuple[Any, torch.optim.AdamW]:
    """A model, and its optimizer after two updates."""
    model = flamingo("llama", config, gates=0.5)
    optimizer = optimizers.build(model, OptimizerConfig(rate=1e-2))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(2):
        for parameter in optimizers.trained(model).values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return model, optimizer


def store(folder: Path, model: Any, keep: int = 2) -> Checkpoints:
    return Checkpoints(folder, keep=keep, frozen=files.identities(model))


def everything(model: Any, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    found = [p.detach().clone() for p in model.parameters()]
    for parameter in optimizers.trained(model).values():
        found += [value.clone() for value in optimizer.state[parameter].values()]
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("config", (None, configs.train_language(configs.tiny())))
def test_what_is_saved_is_read_back_and_training_may_go_on_meanwhile(tmp_path: Path, config: Any) -> None:
    model, optimizer = made(config=config)
    saved = store(tmp_path, model)
    expected, drawn = everything(model, optimizer), torch.get_rng_state()
    saved.save(2, model, optimizer, {"pairs": {"update": 2, "positions": [[1, 2]]}})
    optimizer.step()  # while it is written
    torch.rand(3)
    saved.settle()
    other, state = made(seed=1, config=config)
    resumed = store(tmp_path, other).resume(other, state)
    assert resumed is not None and resumed.step == 2
    assert resumed.loaders == [{"pairs": {"update": 2, "positions": [[1, 2]]}}]
    assert all(map(torch.equal, everything(other, state), expected))
    assert torch.equal(torch.get_rng_state(), drawn)


def test_the_newest_few_are_kept(tmp_path: Path) -> None:
    model, optimizer = made()
    saved = store(tmp_path, model, keep=2)
    for step in (1, 2, 3, 4):
        saved.save(step, model, optimizer, {})
    assert "step-00000004" not in names(tmp_path) or saved.poll()
    saved.settle()
    assert names(tmp_path) == ["step-00000003", "step-00000004"]


def _half_written(folder: Path) -> None:
    (folder / "step-00000009").rename(folder / ".step-00000009.partial")


def _without_record(folder: Path) -> None:
    (folder / "step-00000009" / "run.json").unlink()


def _torn_record(folder: Path) -> None:
    path = folder / "step-00000009" / "run.json"
    path.write_text(path.read_text()[:100])


def _strange_record(folder: Path) -> None:
    (folder / "step-00000009" / "run.json").write_text("[]")


def _short_file(folder: Path) -> None:
    path = next((folder / "step-00000009").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])


def _lost_file(folder: Path) -> None:
    next((folder / "step-00000009").glob("*.safetensors")).unlink()


@pytest.mark.parametrize(
    "tear", (_half_written, _without_record, _torn_record, _strange_record, _short_file, _lost_file)
)
def test_torn_ones_are_passed_over_and_written_again(tmp_path: Path, tear: Any) -> None:
    model, optimizer = made()
    saved = store(tmp_path, model)
    for step in (8, 9):
        saved.save(step, model, optimizer, {})
    saved.settle()
    tear(tmp_path)
    assert (found := latest(tmp_path)) is not None and found.step == 8
    resumed = store(tmp_path, model).resume(model, optimizer)
    assert resumed is not None and resumed.step == 8
    saved.save(9, model, optimizer, {})
    saved.settle()
    assert names(tmp_path) == ["step-00000008", "step-00000009"]
    assert (found := latest(tmp_path)) is not None and found.step == 9


def test_no_checkpoint(tmp_path: Path) -> None:
    model, optimizer = made()
    assert latest(tmp_path / "nowhere") is None
    assert store(tmp_path / "nowhere", model).resume(model, optimizer) is None


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model, optimizer = made()
    with pytest.raises(CheckpointError, match="rank 0: .*Not a directory.*there is no earlier one"):
        store(tmp_path / "file" / "checkpoints", model).save(1, model, optimizer, {})


def test_a_failed_write_is_said_by_poll_and_raised_by_settle(tmp_path: Path) -> None:
    model, optimizer = made()
    saved = store(tmp_path, model)
    saved.save(1, model, optimizer, {})
    assert saved._writing is not None
    saved._writing[1].result()  # written, not yet visible
    (tmp_path / ".step-00000001.partial" / "rank-00000.json").rename(tmp_path / "elsewhere")
    (tmp_path / ".step-00000001.partial").rename(tmp_path / "gone")
    assert not saved.poll()
    with pytest.raises(CheckpointError, match="No such file"):
        saved.settle()
    saved.settle()  # said once


def test_nothing_in_it_is_a_pickle(tmp_path: Path) -> None:
    model, optimizer = made()
    saved = store(tmp_path, model)
    saved.save(1, model, optimizer, {})
    saved.settle()
    folder = tmp_path / "step-00000001"
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    for path in folder.iterdir():
        with pytest.raises((ValueError, UnicodeDecodeError)):
            list(pickletools.genops(path.read_bytes()))
    record = json.loads((folder / "run.json").read_text())
    assert record["step"] == 1 and record["world"] == 1 and set(record["frozen"]) == {"language", "vision"}


def test_another_model_is_refused_by_name(tmp_path: Path) -> None:
    model, optimizer = made()
    saved = store(tmp_path, model)
    saved.save(1, model, optimizer, {})
    saved.settle()
    with torch.no_grad():
        next(model.lm.parameters()).add_(1)
    with pytest.raises(CheckpointError, match="the frozen language model is not .*Take another output folder"):
        store(tmp_path, model).resume(model, optimizer)


def test_export_is_a_checkpoint_of_the_model(tmp_path: Path) -> None:
    model, _ = made()
    export(model, tmp_path / "model.safetensors", files.identities(model), notes={"step": "2"})
    other = flamingo("llama")
    files.load(other, tmp_path / "model.safetensors")
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    assert files.read_config(tmp_path / "model.safetensors") == model.config


def test_a_torch_that_cannot_write_them_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.distributed.checkpoint.hf_storage", None)
    with pytest.raises(CheckpointError, match="install 2.9 or newer"):
        Checkpoints(tmp_path, keep=1, frozen={})
