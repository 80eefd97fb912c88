"""One ModelHandler for every model of the project: RunInference keeps one copy of it in each worker process."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference
from apache_beam.pvalue import PCollection

from mmc4_builder.commits import Commit
from mmc4_builder.workspace import Unit
from pipelines.units import Step, run_unit


class UnitModel(ModelHandler[Unit, PredictionResult, "Held"]):
    """Runs a step whose function takes a model as its third argument.

    An example is a work unit, not a picture: what it holds is decoded in the process that has the model and never
    leaves it, batches within a unit are the same on every run, and what comes out is a commit record.
    """

    def __init__(self, step: Step, load: Callable[[], Any]) -> None:
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._step = step
        self._load = load

    def load_model(self) -> "Held":
        return Held(self._load())

    def run_inference(
        self, batch: Sequence[Unit], model: "Held", inference_args: dict[str, Any] | None = None
    ) -> Iterable[PredictionResult]:
        step = replace(self._step, run=partial(self._step.run, model=model.model))
        return [PredictionResult(unit, run_unit(unit, step)) for unit in batch]

    def get_num_bytes(self, batch: Sequence[Unit]) -> int:
        """Of addresses; the default pickles every batch to find out."""
        return sum(piece.length for unit in batch for piece in unit.pieces)

    def get_metrics_namespace(self) -> str:
        return self._step.name


@dataclass
class Held:
    """RunInference shares a model by weak reference, which not every object can have."""

    model: Any


@dataclass
class RunModel(beam.PTransform):
    """Run a step that needs a model on every unit."""

    step: Step
    load: Callable[[], Any]

    def default_label(self) -> str:
        return self.step.name

    def expand(self, units: PCollection[Unit]) -> PCollection[Commit]:
        results = units | RunInference(UnitModel(self.step, self.load))
        return results | beam.Map(_commit)


def _commit(result: PredictionResult) -> Commit:
    return cast(Commit, result.inference)
