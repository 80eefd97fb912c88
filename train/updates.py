"""One update's rows, made from nothing but its number and how far its lanes have come: the same wherever it runs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from train import rows
from train.batch import Batch
from train.collate import Row, collate
from train.lanes import STREAMS, Lanes
from train.packing import fill
from train.rows import Part, Recipe
from train.samples import Source
from train.sequences import Piece, Skip

# So many samples in a row that give nothing are no accident: even if one in a hundred were good, the chance of a run
# of a thousand without it is 4e-5, and of ten thousand 2e-44. Small datasets are looked through several times.
LEAST_SKIPS, MOST_SKIPS = 1000, 10_000


class LoaderError(Exception):
    """A dataset cannot give another batch; says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A rank's share of an update, and where its lanes are after it."""

    number: int
    batches: tuple[Batch, ...]
    positions: Tensor  # int64 [rows]
    failure: str = ""  # instead of batches: errors cross processes as text

    def pin_memory(self) -> "Update":
        """DataLoader asks for this."""
        return replace(self, batches=tuple(batch.pin_memory() for batch in self.batches))


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Makes updates of `rows` of the dataset's lanes. Workers get a copy."""

    source: Source
    lanes: Lanes
    recipe: Recipe
    rows: range
    micro_batch: int
    all_previous: bool

    def updates(self, first: int, positions: Tensor, worker: int = 0, workers: int = 1) -> Iterator[Update]:
        """From update `first` on, those of the streams that are this worker's. `positions`: int64 [STREAMS, rows]."""
        positions = positions.clone()
        number = first
        while True:
            stream = number % STREAMS
            if stream % workers == worker:
                try:
                    update = self.make(number, positions[stream])
                except LoaderError as error:
                    yield Update(number=number, batches=(), positions=positions[stream], failure=str(error))
                    return
                positions[stream] = update.positions
                yield update
            number += 1

    def make(self, number: int, positions: Tensor) -> Update:
        """One update from lanes at `positions` [rows]; raises LoaderError."""
        stream, size = number % STREAMS, self.micro_batch or len(self.rows)
        places, batches = positions.tolist(), []
        for start in range(0, len(self.rows), size):
            skipped: Counter[str] = Counter()
            made: list[Row] = []
            for place in range(start, min(start + size, len(self.rows))):
                lane = _Lane(self, stream, self.rows[place], places[place], skipped)
                made.append(lane.row())
                places[place] = lane.k
            batches.append(collate(made, self.recipe, all_previous=self.all_previous, skipped=skipped))
        return Update(number=number, batches=tuple(batches), positions=torch.tensor(places, dtype=torch.int64))


class _Lane:
    """Reads on in one lane until a row is full."""

    def __init__(self, maker: Maker, stream: int, row: int, k: int, skipped: Counter[str]) -> None:
        self.k = k
        self._maker, self._stream, self._row, self._skipped = maker, stream, row, skipped
        self._parts: list[Part] = []

    def row(self) -> Row:
        recipe = self._maker.recipe
        if recipe.packed:
            fill(self._next, recipe.kind.tokens)
        else:
            self._next(recipe.kind.tokens)
        return self._parts

    def _next(self, room: int) -> Piece:
        maker = self._maker
        limit = min(max(maker.lanes.split.training, LEAST_SKIPS), MOST_SKIPS)
        reasons: Counter[str] = Counter()
        while reasons.total() < limit:
            draw = maker.lanes.draw(self._stream, self._row, self.k)
            self.k += 1
            try:
                part = rows.part(maker.source.read(draw.index), draw.epoch, room, maker.recipe, self._skipped)
            except Skip as skip:
                reasons[skip.reason] += 1
                continue
            self._skipped.update(reasons)
            self._parts.append(part)
            return part.piece
        found = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        raise LoaderError(
            f"{maker.lanes.name}: {limit} samples one after the other were passed over ({found}); "
            "see whether the data is whole, and whether min_similarity or min_bytes leaves anything of it"
        )
