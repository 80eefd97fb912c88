"""How Beam runs units of work: each is done once, commits, and passes on its record, never its payload."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import apache_beam as beam
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection

from mmc4_builder import commits, timings
from mmc4_builder.commits import Commit, Piece
from mmc4_builder.workspace import WORKER, Unit, Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One kind of work: a function of a unit and its workspace, and the fingerprint that dates its results."""

    name: str
    root: str  # of the build
    fingerprint: str  # of the configuration, and of everything upstream that the function reads
    run: Callable[..., None]  # of a unit, its workspace, and a model where the step needs one


def unit_fingerprint(step_fingerprint: str, unit: Unit) -> str:
    """What dates the commit of one unit."""
    return commits.fingerprint(step_fingerprint, unit.name, unit.inputs)


def run_unit(unit: Unit, step: Step) -> Commit:
    """Do the unit's work and commit it; work that an earlier run committed is not done again."""
    fingerprint = unit_fingerprint(step.fingerprint, unit)
    commit = commits.find(step.root, step.name, unit.name, fingerprint)
    if commit is None:
        with timings.attempt(step.root, step.name, unit.name, os.environ.get(WORKER, "")) as clock:
            clock.received = sum(piece.length for piece in unit.pieces)
            workspace = Workspace(step.root, step.name, unit)
            step.run(unit, workspace)
            commit = clock.commit = workspace.commit(fingerprint)
        for name, count in commit.counts.items():
            Metrics.counter(step.name, name).inc(count)
    return commit


@dataclass
class Run(beam.PTransform):
    """Run a step on every unit."""

    step: Step

    def default_label(self) -> str:
        return self.step.name

    def expand(self, units: PCollection[Unit]) -> PCollection[Commit]:
        return units | beam.Map(run_unit, step=self.step)


@dataclass
class Exchange(beam.PTransform):
    """Hand the pieces that commits left to their destinations.

    Every destination appears once, also one for which nothing was left, and only after all sources are done.
    What crosses the shuffle is the address of each piece, about a hundred bytes.
    """

    exchanges: tuple[str, ...]
    destinations: tuple[Unit, ...]

    def default_label(self) -> str:
        return f"Exchange {', '.join(self.exchanges)}"

    def expand(self, sources: PCollection[Commit]) -> PCollection[Unit]:
        every = sources.pipeline | beam.Create([(unit.name, unit) for unit in self.destinations]).with_output_types(
            tuple[str, Unit]
        )
        pieces = sources | beam.FlatMap(_addressed, exchanges=frozenset(self.exchanges)).with_output_types(
            tuple[str, Piece]
        )
        return (every, pieces) | "Meet" >> beam.Flatten() | beam.GroupByKey() | beam.Map(_destination)


def _addressed(commit: Commit, exchanges: frozenset[str]) -> Iterator[tuple[str, Piece]]:
    for destination, pieces in commit.pieces.items():
        for piece in pieces:
            if piece.exchange in exchanges:
                yield destination, piece


def _destination(group: tuple[str, Iterable[Unit | Piece]]) -> Unit:
    """The destination unit with its pieces, in an order that does not depend on the engine's."""
    members = list(group[1])
    pieces = sorted((m for m in members if isinstance(m, Piece)), key=lambda piece: (piece.exchange, piece.source))
    (unit,) = (m for m in members if isinstance(m, Unit))
    return replace(unit, pieces=tuple(pieces))


@dataclass
class Committed(beam.PTransform):
    """The records that an earlier stage left, read by the workers rather than by the launcher."""

    root: str
    step: str

    def default_label(self) -> str:
        return f"Committed {self.step}"

    def expand(self, units: PCollection[Unit]) -> PCollection[Commit]:
        return units | beam.Map(_record, root=self.root, step=self.step)


def _record(unit: Unit, root: str, step: str) -> Commit:
    (commit,) = commits.load_all(root, step, [unit.name])
    return commit


def units(count: int) -> tuple[Unit, ...]:
    """Units `00000`, `00001`, ..."""
    return tuple(Unit(name=f"{index:05d}") for index in range(count))
