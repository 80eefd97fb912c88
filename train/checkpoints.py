"""Checkpoints of a run: written while training goes on, visible only when whole, read by any number of ranks.

    output/checkpoints/step-00000100/
        shard-*.safetensors   what is trained, and its optimizer's state: torch.distributed.checkpoint, a file a rank
        rank-00000.json       a rank's loaders and random state
        run.json              step, configuration, which frozen weights, and the files with their sizes: written last

A folder is written under a hidden name and renamed once all of it is on disk. Nothing in it is a pickle.
"""

import inspect
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from model import checkpoint as files
from model.flamingo import Flamingo
from train.distributed import gathered, local, whole
from train.optimizer import trained

FILE_BYTES = 1 << 30  # a file is made in memory before it is written: this bounds it, tensors of more aside
_NAME = re.compile(r"step-(\d{8,})")


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A whole checkpoint."""

    path: Path
    step: int  # updates that are in it
    run: Mapping[str, Any]  # run.json


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """What the trainer goes on from."""

    step: int
    loaders: Sequence[Mapping[str, Any]]  # of every rank that saved, by dataset


def latest(folder: Path) -> Saved | None:
    """The newest whole checkpoint. Half-written and damaged ones are passed over."""
    found = sorted(folder.glob("step-*"), reverse=True) if folder.is_dir() else []
    return next((saved for path in found if (saved := _whole(path))), None)


def _whole(path: Path) -> Saved | None:
    """A folder whose files are all there, each as long as it was."""
    match = _NAME.fullmatch(path.name)
    try:
        run = json.loads((path / "run.json").read_text())
        right = all((path / name).stat().st_size == size for name, size in run["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Saved(path=path, step=int(match[1]), run=run) if match and right else None


class Checkpoints:
    """Of one run, written in the background: `save`, and `settle` before the process ends.

    Every rank calls every method. `frozen` are `model.checkpoint.identities`, taken before anything is sharded.
    """

    def __init__(self, folder: Path, *, keep: int, frozen: Mapping[str, files.Identity], about: Any = None) -> None:
        _check_torch()
        self.folder, self.keep = folder, keep
        self._run = {"about": about, "frozen": {part: asdict(identity) for part, identity in frozen.items()}}
        self._group: Any = dist.new_group(backend="gloo")  # of its own: it is used from another thread
        self._first = dist.get_rank() == 0
        self._writing: tuple[int, Future[Any]] | None = None
        self._error: str | None = None

    def save(self, step: int, model: Flamingo, optimizer: torch.optim.Optimizer, loaders: Mapping[str, Any]) -> None:
        """Begin to write. Returns when the state is copied; training may then change it."""
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
        from torch.distributed.checkpoint.state_dict_saver import async_save

        self.settle()
        partial = self._partial(step)
        if self._first:
            self._agree(self._try(lambda: self._clear(partial)))
        else:
            self._agree(None)
        rank = {"loaders": loaders, "random": _random_state()}
        self._agree(self._try(lambda: _write_json(partial / f"rank-{dist.get_rank():05}.json", rank)))
        state = _state(model, optimizer)
        self._run |= {"step": step, "world": dist.get_world_size(), "model": asdict(model.config)}
        writer = HuggingFaceStorageWriter(str(partial), fqn_to_index_mapping=_files(state), save_distributed=True)
        future: Any = async_save(state, storage_writer=writer, process_group=self._group)
        self._writing = step, future

    def poll(self) -> bool:
        """Make a finished write visible. False: a write failed, and `settle` says how. Waits for nothing."""
        if self._writing and self._writing[1].done():
            self._finish()
        return self._error is None

    def settle(self) -> None:
        """Wait until nothing is being written. Raises on every rank where it failed on one."""
        if self._writing:
            self._finish()
        error, self._error = self._error, None
        self._agree(error)

    def close(self) -> None:
        """Finish what is being written, also where an error is on its way and other ranks may be gone."""
        if self._writing:
            self._finish()

    def _finish(self) -> None:
        assert self._writing
        (step, future), self._writing = self._writing, None
        error = future.exception()
        if error is not None:
            self._error = _causes(error)
        elif self._first:
            self._error = self._try(lambda: self._commit(step))
        if self._error and self._first:
            shutil.rmtree(self._partial(step), ignore_errors=True)

    def _partial(self, step: int) -> Path:
        return self.folder / f".step-{step:08}.partial"

    def _clear(self, partial: Path) -> None:
        """Make the folder, and sweep what interrupted runs have left."""
        for torn in (*self.folder.glob(".step-*.partial"), *self.folder.glob(".step-*.old")):
            shutil.rmtree(torn)
        partial.mkdir(parents=True)

    def _commit(self, step: int) -> None:
        """Everything is on disk, on all ranks: make it visible, then let the oldest go."""
        partial, path = self._partial(step), self.folder / f"step-{step:08}"
        sizes = {file.name: file.stat().st_size for file in sorted(partial.iterdir())}
        _write_json(partial / "run.json", self._run | {"files": sizes})
        _sync(partial)
        if path.exists():  # not whole, or this run would have gone on from it
            _remove(path)
        partial.rename(path)
        _sync(self.folder)
        kept = [saved for old in sorted(self.folder.glob("step-*")) if (saved := _whole(old))]
        for saved in kept[: -self.keep]:
            _remove(saved.path)

    def _try(self, act: Any) -> str | None:
        try:
            act()
        except OSError as error:
            return str(error)
        return None

    def _agree(self, error: str | None) -> None:
        errors = {f"rank {rank}: {text}" for rank, text in enumerate(gathered(error)) if text}
        if errors:
            newest = latest(self.folder)
            stands = f"{newest.path.name} is whole" if newest else "there is no earlier one"
            raise CheckpointError(
                f"no checkpoint could be written to {self.folder} ({'; '.join(sorted(errors))}). {stands}: "
                "make room, and run the same command again"
            )

    def resume(self, model: Flamingo, optimizer: torch.optim.Optimizer) -> Resumed | None:
        """Fill model, optimizer and random state from the newest whole checkpoint; None where there is none."""
        name = gathered(saved.path.name if self._first and (saved := latest(self.folder)) else None)[0]
        if name is None:
            return None
        saved = _whole(self.folder / name)
        if saved is None:
            raise CheckpointError(f"{self.folder / name} cannot be read here: all ranks need the same folder")
        self._check(saved, model)
        _load(saved, model, optimizer, self._group)
        ranks = [json.loads((saved.path / f"rank-{rank:05}.json").read_text()) for rank in range(saved.run["world"])]
        if len(ranks) == dist.get_world_size():
            _set_random_state(ranks[dist.get_rank()]["random"])
        return Resumed(step=saved.step, loaders=[rank["loaders"] for rank in ranks])

    def _check(self, saved: Saved, model: Flamingo) -> None:
        here: dict[str, Any] = json.loads(json.dumps(asdict(model.config)))
        faults = [
            f"{part}.{name}: {saved.run['model'].get(part, {}).get(name)!r} there, {value!r} here"
            for part, values in here.items()
            for name, value in values.items()
            if saved.run["model"].get(part, {}).get(name) != value
        ]
        faults += [
            f"the frozen {part} model is not {before['name']} as it was"
            for part, before in saved.run["frozen"].items()
            if before["fingerprint"] != self._run["frozen"].get(part, {}).get("fingerprint")
        ]
        if faults:
            raise CheckpointError(
                f"{saved.path} is of another model: {'; '.join(faults)}. Take another output folder for this one"
            )


def _state(model: Flamingo, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flat, by name. Steps are one vector: the format has no scalars."""
    state = {f"model.{name}": tensor.detach() for name, tensor in files.own_state(model).items()}
    for name, parameter in trained(model).items():
        for kind in ("exp_avg", "exp_avg_sq"):
            state[f"optimizer.{kind}.{name}"] = optimizer.state[parameter][kind]
    state["optimizer.steps"] = torch.stack([optimizer.state[p]["step"].cpu() for p in trained(model).values()])
    return state


def _files(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Which file of a rank holds a tensor: as many as keep each below FILE_BYTES, where all of it is one rank's."""
    found, number, size = {}, 1, 0
    for name, tensor in state.items():
        bytes_ = tensor.numel() * tensor.element_size()
        if size and size + bytes_ > FILE_BYTES:
            number, size = number + 1, 0
        found[name], size = number, size + bytes_
    return found


def _load(saved: Saved, model: Flamingo, optimizer: torch.optim.Optimizer, group: Any) -> None:
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    state = _state(model, optimizer)
    try:
        load(state, storage_reader=HuggingFaceStorageReader(str(saved.path)), process_group=group)
    except CheckpointException as error:
        raise CheckpointError(f"{saved.path} cannot be loaded: {_causes(error)}") from error
    for parameter, steps in zip(trained(model).values(), state["optimizer.steps"], strict=True):
        optimizer.state[parameter]["step"].copy_(steps)


def _causes(error: BaseException) -> str:
    """In a line: torch.distributed.checkpoint wraps what happened on each rank, with its traceback."""
    failures = getattr(error, "failures", None) or {}
    found = {f"{type(cause[0]).__name__}: {cause[0]}" for cause in failures.values()}
    return "; ".join(sorted(found)) or f"{type(error).__name__}: {error}"


def _random_state() -> dict[str, str]:
    state = {"cpu": torch.get_rng_state().numpy().tobytes().hex()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state().numpy().tobytes().hex()
    return state


def _set_random_state(state: Mapping[str, str]) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray.fromhex(state["cpu"]), dtype=torch.uint8))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.frombuffer(bytearray.fromhex(state["cuda"]), dtype=torch.uint8))


def _write_json(path: Path, value: Any) -> None:
    with path.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    """Gone at once for whoever looks, then from the disk."""
    old = path.with_name(f".{path.name}.old")
    path.rename(old)
    shutil.rmtree(old)


def _check_torch() -> None:
    """Now, and not after a thousand updates."""
    try:
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

        able = "save_distributed" in inspect.signature(HuggingFaceStorageWriter).parameters
    except ImportError:
        able = False
    if not able:
        raise CheckpointError(
            f"torch {torch.__version__} cannot write checkpoints in safetensors: install 2.9 or newer"
        )


# For those who use the model


def export(
    model: Flamingo, path: Path, frozen: Mapping[str, files.Identity], *, notes: Mapping[str, str] | None = None
) -> None:
    """What is trained, whole, as one safetensors file of `model.checkpoint`. Every rank calls it, the first writes."""
    state = {name: _here(tensor) for name, tensor in files.own_state(model).items()}
    if dist.get_rank() == 0:
        files.write(path, state, model.config, frozen, notes)


def _here(tensor: Tensor) -> Tensor:
    """Where it is, or gathered to the CPU where each rank has a part."""
    return tensor.detach() if local(tensor) is tensor else whole(tensor).detach().cpu()
