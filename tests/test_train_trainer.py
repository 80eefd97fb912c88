"""A run from its first update to its last, and everything that can come between."""

import json
import math
import os
import resource
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import training_runs
from safetensors.torch import load_file
from training_runs import Made, alone, go, loaders_of, losses, one_thread, tiny_run  # noqa: F401

from model import config as configs
from train.batch import Batch
from train.checkpoints import CheckpointError, latest
from train.config import DatasetConfig, PairsConfig, ParallelConfig, TrainConfig
from train.distributed import Place
from train.step import NonFiniteError
from train.updates import LoaderError

pytest.importorskip("transformers")

GOLDEN = Path(__file__).parent / "data" / "golden_losses.json"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 9 updates that nothing happens to."""
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("undisturbed")
    alone(tiny_run(), output)
    return output


def assert_same_run(output: Path, expected: Path) -> None:
    """Losses and weights, bit for bit."""
    assert losses(output) == losses(expected)
    found, weights = (load_file(folder / "model.safetensors") for folder in (output, expected))
    assert found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)


class Troubled(Made):
    """A loader to which something happens when update `when` is asked for."""

    def __init__(self, name: str, batch: int, *, when: int, act: Any, **where: Any) -> None:
        super().__init__(name, batch, **where)
        self.when, self.act = when, act

    def __iter__(self) -> Iterator[tuple[Batch, ...]]:
        for batches in super().__iter__():
            if self.at == self.when + 1:
                self.act()
            yield batches


def troubled(config: TrainConfig, when: int, act: Any, **where: Any) -> dict[str, Made]:
    first, *others = config.datasets
    loaders: dict[str, Made] = {first.name: Troubled(first.name, first.batch, when=when, act=act, **where)}
    return loaders | {d.name: Made(d.name, d.batch, **where) for d in others}


# The same numbers


def test_golden_losses(tmp_path: Path) -> None:
    """50 updates. Kernels differ from one CPU to the next, hence the tolerance.

    To write the file anew after a change that is meant: GOLDEN=1 in the environment.
    """
    alone(tiny_run(steps=50, save_every=50), tmp_path)
    found = {str(step): values for step, (values, _) in losses(tmp_path).items()}
    if os.environ.get("GOLDEN"):
        GOLDEN.write_text(json.dumps({s: {n: round(v, 6) for n, v in x.items()} for s, x in found.items()}) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert found.keys() == golden.keys() and len(golden) == 50
    for step, values in golden.items():
        assert found[step] == pytest.approx(values, rel=1e-4), step
    assert json.loads(GOLDEN.read_text())["50"]["pairs"] < json.loads(GOLDEN.read_text())["1"]["pairs"]


def test_only_new_weights_are_exported(undisturbed: Path) -> None:
    names = {name.split(".")[0] for name in load_file(undisturbed / "model.safetensors")}
    assert names == {"resampler", "blocks", "new_tokens"}


def test_round_robin_takes_one_dataset_an_update(tmp_path: Path) -> None:
    alone(tiny_run(mixing="round_robin", steps=4, save_every=4), tmp_path)
    assert [list(values) for values, _ in losses(tmp_path).values()] == [["documents"], ["pairs"]] * 2


def test_what_is_finished_is_not_trained_again(undisturbed: Path) -> None:
    before = losses(undisturbed)
    result = alone(tiny_run(), undisturbed)
    assert (result.step, result.exit_code) == (9, 0) and losses(undisturbed) == before


# Interrupted


def _train(config: TrainConfig, output: Path) -> int:
    return alone(config, output).exit_code


def test_killed_in_the_middle(tmp_path: Path, undisturbed: Path) -> None:
    """SIGKILL to a process that trains, at whatever point it is: before there is a checkpoint, and after."""
    for least in (2, 7):
        process = training_runs.start(_train, tiny_run(), tmp_path)
        deadline = time.monotonic() + 100
        while process.is_alive() and time.monotonic() < deadline:
            if (tmp_path / "metrics.jsonl").exists() and max(losses(tmp_path), default=0) >= least:
                break
            time.sleep(0.002)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    saved = latest(tmp_path / "checkpoints")
    assert saved is not None and 3 <= saved.step < 9
    alone(tiny_run(), tmp_path)
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_finish_the_update_and_save(tmp_path: Path, undisturbed: Path, number: int, code: int) -> None:
    config, said = tiny_run(), StringIO()
    before = signal.getsignal(number)
    loaders = troubled(config, 4, lambda: os.kill(os.getpid(), number))
    result = alone(config, tmp_path, loaders=loaders, stream=said)
    assert (result.step, result.exit_code) == (5, code) and signal.getsignal(number) is before
    assert "the same command goes on from here" in said.getvalue()
    assert (found := latest(tmp_path / "checkpoints")) is not None and found.step == 5
    assert alone(config, tmp_path).exit_code == 0
    assert_same_run(tmp_path, undisturbed)


def test_loader_that_dies_leaves_a_checkpoint_of_all_updates(tmp_path: Path, undisturbed: Path) -> None:
    def die() -> None:
        raise OSError("the disk is gone")

    config = tiny_run()
    with pytest.raises(
        LoaderError, match=r"rank 0: dataset documents cannot be read: OSError: the disk is gone\. 5 up"
    ):
        alone(config, tmp_path, loaders=troubled(config, 5, die))
    assert (found := latest(tmp_path / "checkpoints")) is not None and found.step == 5
    alone(config, tmp_path)
    assert_same_run(tmp_path, undisturbed)


def test_loader_killed_together_with_the_run(tmp_path: Path) -> None:
    """A scheduler ends a whole group of processes: the loader's error is then no error."""

    def both() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("worker is killed by signal: Terminated")

    config = tiny_run()
    result = alone(config, tmp_path, loaders=troubled(config, 5, both))
    assert (result.step, result.exit_code) == (5, 143)
    assert (found := latest(tmp_path / "checkpoints")) is not None and found.step == 5


def test_loader_that_ends(tmp_path: Path) -> None:
    config = tiny_run()
    loaders = loaders_of(config, Place(rank=0, world=1, device=torch.device("cpu")))
    short: Any = type("Short", (Made,), {"__iter__": lambda self: iter(())})("pairs", 6)
    with pytest.raises(LoaderError, match="dataset pairs has ended. 0 updates"):
        alone(config, tmp_path, loaders=loaders | {"pairs": short})


def test_what_is_no_number_stops_and_the_last_checkpoint_goes_on(tmp_path: Path, undisturbed: Path) -> None:
    def poisoned(model: Any) -> Mapping[str, float]:
        with torch.no_grad():
            model.blocks[0].ff.up.weight.fill_(math.nan)
        return {}

    config = tiny_run()
    with pytest.raises(
        NonFiniteError, match="update 6: losses documents nan.*samples documents-6-0, documents-6-1, documents-6-2"
    ):
        alone(config, tmp_path, validate=poisoned)
    assert (found := latest(tmp_path / "checkpoints")) is not None and found.step == 6
    alone(config, tmp_path)
    assert_same_run(tmp_path, undisturbed)


def _without_room(config: TrainConfig, output: Path) -> int:
    """Files may be 20 kB from now on: metrics fit, weights do not."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        alone(config, output)
    except CheckpointError as error:
        (output / "error").write_text(str(error))
        return 7
    return 0


def test_full_disk(tmp_path: Path, undisturbed: Path) -> None:
    alone(tiny_run(steps=3), tmp_path)
    process = training_runs.start(_without_room, tiny_run(), tmp_path)
    process.join(100)
    assert process.exitcode == 7
    error = (tmp_path / "error").read_text()
    assert "File too large" in error and "step-00000003 is whole" in error and "run the same command again" in error
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    alone(tiny_run(), tmp_path)
    assert_same_run(tmp_path, undisturbed)


# Validation, and what changes between runs


def test_validation_is_logged_without_gradients_and_changes_nothing(tmp_path: Path, undisturbed: Path) -> None:
    seen = []

    def validate(model: Any) -> Mapping[str, float]:
        seen.append((model.training, torch.is_grad_enabled()))
        return {"loss": 2.5}

    alone(tiny_run(), tmp_path, validate=validate)
    assert seen == [(False, False)] * 2
    found = [line for line in training_runs.lines(tmp_path) if "validation" in line]
    assert found == [{"step": 6, "validation": {"loss": 2.5}}, {"step": 9, "validation": {"loss": 2.5}}]
    assert_same_run(tmp_path, undisturbed)


def test_more_updates_and_another_dataset(tmp_path: Path) -> None:
    said = StringIO()
    alone(tiny_run(steps=2), tmp_path)
    config = tiny_run(steps=4)
    videos = DatasetConfig(name="videos", path="-", kind=PairsConfig(), batch=2, weight=0.03)
    config = replace(config, datasets=(*config.datasets, videos))
    assert alone(config, tmp_path, stream=said).step == 4
    assert "goes on after update 2" in said.getvalue() and "dataset videos is new" in said.getvalue()
    assert list(losses(tmp_path)[4][0]) == ["documents", "pairs", "videos"]


def test_another_model_is_refused(tmp_path: Path) -> None:
    alone(tiny_run(steps=1), tmp_path)
    other = replace(configs.tiny(), resampler=replace(configs.tiny().resampler, depth=1))
    with pytest.raises(CheckpointError, match="another model: resampler.depth: 2 there, 1 here"):
        alone(tiny_run(model=other), tmp_path)
    with pytest.raises(CheckpointError, match="the frozen language model is not"):
        alone(tiny_run(), tmp_path, family="qwen2")


def test_bf16_recomputed(tmp_path: Path) -> None:
    alone(tiny_run(steps=2, parallel=ParallelConfig(bf16=True, recompute=True)), tmp_path)
    assert {t.dtype for t in load_file(tmp_path / "model.safetensors").values()} == {torch.float32}


# Several ranks


def _reshard(place: Place, folder: Path, kind: str) -> None:
    parallel = ParallelConfig(kind=kind, frozen="shard" if kind == "fsdp" else "replicate")  # type: ignore[arg-type]
    go(tiny_run(parallel=parallel), folder / kind, place)


def _from_two(place: Place, folder: Path) -> None:
    """Six updates on two ranks, in shards."""
    go(tiny_run(steps=6, parallel=ParallelConfig(kind="fsdp")), folder / "narrow", place)
    config = tiny_run(steps=6)
    where = {"rank": place.rank, "world": 2}
    loaders = loaders_of(config, place) if place.first else troubled(config, 2, lambda: [][0], **where)
    with pytest.raises(LoaderError, match="rank 1: dataset documents cannot be read: IndexError"):
        go(config, folder / "dead", place, loaders=loaders)
    for kind in ("ddp", "fsdp"):
        _reshard(place, folder, kind)


def test_from_one_rank_to_two_and_back(tmp_path: Path, undisturbed: Path) -> None:
    """Also a loader that dies on one of two ranks: both stop, with a checkpoint."""
    for kind in ("ddp", "fsdp"):
        alone(tiny_run(steps=6), tmp_path / kind)
    training_runs.ranks(2, _from_two, tmp_path)
    alone(tiny_run(), tmp_path / "narrow")
    expected = losses(undisturbed)
    for name in ("ddp", "fsdp", "narrow"):
        found = losses(tmp_path / name)
        assert found.keys() == expected.keys()
        for step, (values, norm) in expected.items():
            assert found[step][0] == pytest.approx(values, rel=1e-4), (name, step)
            assert found[step][1] == pytest.approx(norm, rel=1e-3), (name, step)
        weights = load_file(tmp_path / name / "model.safetensors")
        for key, tensor in load_file(undisturbed / "model.safetensors").items():
            torch.testing.assert_close(weights[key], tensor, atol=1e-4, rtol=1e-3)
    assert (saved := latest(tmp_path / "dead" / "checkpoints")) is not None and saved.step == 2
