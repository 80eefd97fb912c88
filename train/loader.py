"""A dataset as an endless row of updates: any number of ranks and workers give the same, and any of them goes on.

    loader = Loader(dataset, vocabulary=vocabulary, images=images, side=224, seed=0, rank=rank, world=world, workers=4)
    batches = next(loader)          # this rank's rows of the next update, in micro-batches
    part = loader.state()           # for the checkpoint; resume(parts of all ranks), or state=merge(parts)

What is in an update is the work of `updates`, in this process or in those of `workers`.
"""

import atexit
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from model.config import ConfigError
from train.batch import Batch
from train.collate import collate, nothing
from train.config import DatasetConfig, ImagesConfig, InterleavedConfig
from train.lanes import STREAMS, Lanes, Split
from train.rows import Part, Recipe, part
from train.samples import DataError, Source
from train.sequences import Skip
from train.sources import open_source
from train.updates import LoaderError, Maker, Update
from train.vocabulary import Vocabulary
from train.workers import start

State = Mapping[str, Any]
"""{"update": the next one, "positions": [STREAMS][rows] numbers}, which JSON can hold."""


class Loader:
    """See the top of this file. `skipped` counts what was passed over, by reason, as far as it was handed out."""

    def __init__(
        self,
        dataset: DatasetConfig,
        *,
        vocabulary: Vocabulary,
        images: ImagesConfig,
        side: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        micro_batch: int = 0,
        see_all_previous: bool = False,
        state: State | None = None,
        source: Source | None = None,
    ) -> None:
        """`state`: of `merge`. `source`: one that is open already. Raises ConfigError and DataError.

        Workers start with `iter`, or with the first `next`.
        """
        _check(dataset, world, see_all_previous)
        self.source = source = source or open_source(dataset.path, dataset.kind)
        split = Split(samples=len(source), every=dataset.held_out)
        if not split.training:
            raise DataError(f"{dataset.path}: no sample is left to train on of {len(source)}")
        share = dataset.batch // world
        self.skipped = Counter(source.problems)
        self._workers = workers
        self._maker = Maker(
            source=source,
            lanes=Lanes(split=split, batch=dataset.batch, seed=seed, name=dataset.name),
            recipe=Recipe(kind=dataset.kind, vocabulary=vocabulary, images=images, side=side, seed=seed),
            rows=range(rank * share, (rank + 1) * share),
            micro_batch=micro_batch,
            all_previous=see_all_previous,
        )
        self._name = dataset.name
        self._making: list[Iterator[Update]] | None = None
        self._update, self._positions = _place(state, self._maker)

    def resume(self, states: Sequence[State]) -> None:
        """Go on from the states of all ranks that there were, however many there are now. Raises ConfigError."""
        self._update, self._positions = _place(merge(states), self._maker)
        self._making = None

    def __iter__(self) -> "Loader":
        if self._making is None:
            self._making = start(self._maker, self._update, self._positions, self._workers)
            atexit.register(_close, weakref.ref(self))  # before the interpreter tears down what ends workers in order
        return self

    def __next__(self) -> tuple[Batch, ...]:
        """Raises LoaderError where a worker has died, or where nothing usable is left."""
        iter(self)
        if not self._making:
            raise LoaderError(f"{self._name}: the loader is closed")
        stream = self._update % STREAMS
        try:
            update = next(self._making[stream % len(self._making)])
        except (RuntimeError, EOFError, OSError) as error:  # DataLoader's own, or of a pipe that nobody writes to
            if not self._workers:
                raise
            self.close()
            raise LoaderError(
                f"{self._name}: a worker that loads data has died: {error}; see whether the machine ran out of memory "
                "or of shared memory (/dev/shm; a container's --shm-size), or go on with fewer workers"
            ) from error
        if update.failure:
            self.close()
            raise LoaderError(update.failure)
        assert update.number == self._update
        self._positions[stream] = update.positions
        self._update += 1
        for batch in update.batches:
            self.skipped.update(batch.skipped)
        return update.batches

    def state(self) -> dict[str, Any]:
        """This rank's part, as of the last update that was handed out, whatever workers have made since."""
        return {"update": self._update, "positions": self._positions.tolist()}

    def close(self) -> None:
        """Ends the workers."""
        self._making = []


def _close(loader: "weakref.ref[Loader]") -> None:
    if (found := loader()) is not None:
        found.close()


def merge(parts: Sequence[State]) -> dict[str, Any]:
    """The state of all ranks' loaders from their parts, in order of rank."""
    updates = sorted({int(part["update"]) for part in parts})
    if len(updates) != 1:
        raise LoaderError(f"ranks are at different updates: {updates}; take a checkpoint that all of them wrote")
    streams = zip(*(part["positions"] for part in parts), strict=True)
    return {"update": updates[0], "positions": [[k for rows in stream for k in rows] for stream in streams]}


def _check(dataset: DatasetConfig, world: int, see_all_previous: bool) -> None:
    if dataset.batch % world:
        raise ConfigError(f"{dataset.name}: batch {dataset.batch} cannot be shared evenly by {world} ranks")
    if see_all_previous and isinstance(dataset.kind, InterleavedConfig) and dataset.kind.look_ahead:
        raise ConfigError(
            f"{dataset.name}: look_ahead {dataset.kind.look_ahead} is for models that see one image; "
            "this one has see_all_previous"
        )


def _place(state: State | None, maker: Maker) -> tuple[int, Tensor]:
    """The next update, and how far this rank's lanes have come: int64 [STREAMS, rows]."""
    rows, batch = maker.rows, maker.lanes.batch
    if state is None:
        return 0, torch.zeros(STREAMS, len(rows), dtype=torch.int64)
    positions = torch.tensor(state["positions"], dtype=torch.int64)
    if tuple(positions.shape) != (STREAMS, batch):
        raise ConfigError(
            f"{maker.lanes.name}: the checkpoint's loader has {tuple(positions.shape)} lanes, batch {batch} needs "
            f"{(STREAMS, batch)}: resume with the batch that it was made with"
        )
    return int(state["update"]), positions[:, rows.start : rows.stop].clone()


def held_out(
    dataset: DatasetConfig,
    *,
    vocabulary: Vocabulary,
    images: ImagesConfig,
    side: int,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    micro_batch: int = 0,
    see_all_previous: bool = False,
    source: Source | None = None,
) -> Iterator[Batch]:
    """One pass over the samples kept from training, the same each time; ranks get different ones, equally many batches.

    A batch has `micro_batch` rows, or a rank's share of the dataset's batch; fewer where samples are skipped. What
    has none left is one token without a target: sharded models take each step together.
    """
    source = source or open_source(dataset.path, dataset.kind)
    split = Split(samples=len(source), every=dataset.held_out)
    if dataset.held_out and not split.held_out:
        raise DataError(
            f"{dataset.path}: every {dataset.held_out}th of {len(source)} samples is none: lower {dataset.name}'s "
            "held_out, or bring more data"
        )
    plain = Recipe(kind=dataset.kind, vocabulary=vocabulary, images=images, side=side, seed=seed).without_chance()
    size = micro_batch or max(1, dataset.batch // world)
    for step in range(-(-split.held_out // (size * world))):
        first = (step * world + rank) * size
        skipped: Counter[str] = Counter()
        numbers = range(first, min(first + size, split.held_out))
        found = [_whole(source, split.held_out_index(number), plain, skipped) for number in numbers]
        rows = [[made] for made in found if made is not None]
        if rows:
            yield collate(rows, plain, all_previous=see_all_previous, skipped=skipped)
        else:
            yield nothing(plain, all_previous=see_all_previous, skipped=skipped)


def _whole(source: Source, index: int, recipe: Recipe, skipped: Counter[str]) -> Part | None:
    try:
        return part(source.read(index), 0, recipe.kind.tokens, recipe, skipped)
    except Skip as skip:
        skipped[skip.reason] += 1
        return None
