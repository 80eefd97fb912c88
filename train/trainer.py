"""The loop: resume, update, log, save, stop, validate."""

import functools
import gc
import operator
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TextIO

import torch

from model.checkpoint import identities
from model.flamingo import Flamingo
from model.parallelize import ParallelPlan, arithmetic, parallelize
from train import optimizer as optimizers
from train.batch import Batch
from train.checkpoints import Checkpoints, export
from train.config import TrainConfig
from train.distributed import Place, check_agreement, gathered
from train.metrics import Log, Writers
from train.step import Batches, Counts, Engine, Update, count, update
from train.updates import LoaderError

STOP, LOADER_FAILED, SAVE_FAILED = 1, 2, 4  # what a rank tells the others before an update, added up
COLLECT_EVERY = 100  # updates between collections of garbage


class Loader(Protocol):
    """Batches of one dataset, without end: each item is this rank's micro-batches of one update."""

    def __iter__(self) -> Iterator[tuple[Batch, ...]]: ...

    def state(self) -> Mapping[str, Any]:
        """Where it stands, after the items that were taken: what JSON can hold."""
        ...

    def resume(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on from the states of all ranks of the run that saved them, however many there are now."""
        ...


Validate = Callable[[Flamingo], Mapping[str, float]]
"""Loss and whatever else on held-out samples, the same on all ranks. It is called without gradients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where a run happens."""

    output: Path
    place: Place
    writers: Writers = "tensorboard"
    stream: TextIO | None = None  # of people's lines; None: stderr
    deterministic: bool = False  # refuse operations of a GPU that give other bits from one time to the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How it ended. `exit_code` is 0, or 128 and the signal that stopped it."""

    step: int
    exit_code: int = 0


def train(
    config: TrainConfig,
    model: Flamingo,
    loaders: Mapping[str, Loader],
    run: Run,
    validate: Validate | None = None,
) -> Result:
    """Train until `config.steps`, or until SIGTERM or SIGINT; what `run.output` holds is gone on with.

    `joined` must be around it. Every way out leaves a whole checkpoint, or says that there is none.
    """
    with _signals() as stop, _own_garbage(), _determinism(run.deterministic):
        state = _State(config, model, loaders, run)
        try:
            for step in range(state.resume(), config.steps):
                batches, waited = state.take(step)
                counts = state.together(step, batches, stop())
                if counts is None:
                    return state.stopped(step, stop())
                done = update(state.engine, batches, counts, step)
                state.log.add(done, batches, waited)
                if state.due(done, config.log_every):
                    state.log.line()
                if state.stopping or state.due(done, config.save_every):
                    state.save(done)
                if state.stopping:
                    return state.stopped(step + 1, stop())
                if validate and state.due(done, config.validate_every):
                    state.validate(validate, done)
                if (step + 1) % COLLECT_EVERY == 0:
                    gc.collect()
            return state.finished()
        finally:
            state.close()


class _State:
    """What the loop moves. Each method is one of its lines."""

    def __init__(self, config: TrainConfig, model: Flamingo, loaders: Mapping[str, Loader], run: Run) -> None:
        run.output.mkdir(parents=True, exist_ok=True)
        self.config, self.model, self.loaders, self.run = config, model, loaders, run
        settings = asdict(config.parallel)
        settings.pop("micro_batch")
        plan = ParallelPlan(**settings)
        self.frozen = frozen = identities(model)  # before they are cast, moved or sharded
        wrapped = parallelize(model.train(), plan, run.place.device)
        self.engine = Engine(
            model=wrapped,
            optimizer=optimizers.build(model, config.optimizer),
            config=config.optimizer,
            weights={dataset.name: dataset.weight for dataset in config.datasets},
            plan=plan,
            device=run.place.device,
        )
        self.checkpoints = Checkpoints(
            run.output / "checkpoints", keep=config.keep, frozen=frozen, about=asdict(config)
        )
        self.log = Log(run.output, model, run.place, steps=config.steps, writers=run.writers, stream=run.stream)
        self.sources: dict[str, Iterator[tuple[Batch, ...]]] = {}
        self.before: dict[str, Mapping[str, Any]] = {}  # the loaders' states at the last whole update
        self.stopping, self.saved = False, 0
        self.failure = ""
        self.cause: Exception | None = None

    def resume(self) -> int:
        """Updates that are behind us."""
        found = self.checkpoints.resume(self.model, self.engine.optimizer)
        if found is not None:
            for name, loader in self.loaders.items():
                states = [rank[name] for rank in found.loaders if name in rank]
                if states:
                    loader.resume(states)
                else:
                    self.log.say(f"dataset {name} is new to this run: it begins at its beginning")
            self.saved = found.step
            self.log.say(f"goes on after update {found.step:,}")
        self.sources = {name: iter(loader) for name, loader in self.loaders.items()}
        return found.step if found else 0

    def take(self, step: int) -> tuple[Batches, float]:
        """This rank's batches of the update, and the seconds that it waited for them."""
        self.before = {name: loader.state() for name, loader in self.loaders.items()}
        names = [dataset.name for dataset in self.config.datasets]
        if self.config.mixing == "round_robin":
            names = [names[step % len(names)]]
        began = time.perf_counter()
        taken: dict[str, tuple[Batch, ...]] = {}
        for name in names:
            try:
                taken[name] = next(self.sources[name])
            except StopIteration:
                self.failure = f"dataset {name} has ended"
            except Exception as error:  # whatever it was, all ranks stop together, and raise it there
                self.failure, self.cause = f"dataset {name} cannot be read: {type(error).__name__}: {error}", error
            if self.failure:
                return {name: () for name in names}, 0.0
        return taken, time.perf_counter() - began

    def together(self, step: int, batches: Batches, stop: int) -> Mapping[str, Counts] | None:
        """What all ranks have. One that cannot go on ends all of them here, with a checkpoint. None: stop at once."""
        written = self.checkpoints.poll()
        mine = STOP * bool(stop) | LOADER_FAILED * bool(self.failure) | SAVE_FAILED * (not written)
        counts, signals = count(batches, signal=mine)
        every = functools.reduce(operator.or_, signals)
        self.stopping = bool(every & STOP)
        if every & SAVE_FAILED:
            self.checkpoints.settle()
        if not every & LOADER_FAILED:
            return counts
        if self.saved < step:
            self._save(step, self.before)
            self.checkpoints.settle()
        if self.stopping:  # whoever ends us may have ended our loading processes first
            return None
        failures = [f"rank {rank}: {text}" for rank, text in enumerate(gathered(self.failure)) if text]
        error = (
            f"{'; '.join(failures)}. {step:,} updates are saved: once the data can be read, run the same command again"
        )
        raise LoaderError(error) from self.cause

    def due(self, done: Update, every: int) -> bool:
        return (done.step + 1) % every == 0 or done.step + 1 == self.config.steps

    def validate(self, validate: Validate, done: Update) -> None:
        with self.log.pause():
            self.model.eval()
            with torch.no_grad(), arithmetic(self.engine.model, self.engine.plan, self.engine.device):
                values = validate(self.model)
            self.model.train()
        self.log.validation(done.step + 1, values)

    def save(self, done: Update) -> None:
        place = self.run.place
        shard = 0 if place.world == 1 else self.engine.plan.shard(place.rank, place.world)
        check_agreement(optimizers.trained(self.model), shard=shard, norm=done.norm)
        self._save(done.step + 1, {name: loader.state() for name, loader in self.loaders.items()})

    def _save(self, step: int, loaders: Mapping[str, Mapping[str, Any]]) -> None:
        self.checkpoints.save(step, self.model, self.engine.optimizer, loaders)
        self.saved = step

    def stopped(self, step: int, number: int) -> Result:
        self.checkpoints.settle()
        number = max(gathered(number))
        self.log.say(f"stopped by {signal.Signals(number).name}: the same command goes on from here")
        return Result(step=step, exit_code=128 + number)

    def finished(self) -> Result:
        self.checkpoints.settle()
        path = self.run.output / "model.safetensors"
        export(self.model, path, self.frozen, notes={"step": str(self.config.steps)})
        self.log.say(f"trained: {path}")
        return Result(step=self.config.steps)

    def close(self) -> None:
        """What is being written is finished also where an error passes through here."""
        self.checkpoints.close()
        self.log.close()


@contextmanager
def _signals() -> Iterator[Callable[[], int]]:
    """The number of the first SIGTERM or SIGINT, or 0. A second one is obeyed at once."""
    found, own = [0], os.getpid()

    def note(number: int, _: FrameType | None) -> None:
        if os.getpid() != own:  # a loading process that inherited this: it ends when its parent says so
            return
        found[0] = found[0] or number
        signal.signal(number, before[number])

    numbers = (int(signal.SIGTERM), int(signal.SIGINT))
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, note)
    try:
        yield lambda: found[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _own_garbage() -> Iterator[None]:
    """Collect when we say so: ranks that stop for it at times of their own keep all others waiting."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
