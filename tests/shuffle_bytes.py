"""How many bytes a pipeline hands to its engine's shuffle: every element is counted, none is estimated."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam.coders import Coder, typecoders
from apache_beam.metrics.metric import Metrics, MetricsFilter
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.pvalue import PCollection

from pipelines.launch import Engine

NAMESPACE = "shuffle_bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """What one shuffle of a pipeline took in."""

    elements: int
    bytes: int
    largest: int  # bytes of one element


class CountBytes(beam.DoFn):
    """Counts the encoded size of each element, by the coder by which the engine encodes it."""

    def __init__(self, name: str, coder: Coder) -> None:
        self._coder = coder
        self._sizes = Metrics.distribution(NAMESPACE, name)

    def process(self, element: Any) -> Iterator[None]:
        self._sizes.update(len(self._coder.encode(element)))
        yield from ()


@dataclass(slots=True)
class Find(PipelineVisitor):
    """Where elements leave the worker that made them, by name.

    That is what enters a GroupByKey, those within a Reshuffle included, and what enters and leaves a step with a model:
    it may run on other machines than the steps around it.
    """

    found: dict[str, PCollection] = field(default_factory=dict)

    def visit_transform(self, node: AppliedPTransform) -> None:
        if isinstance(node.transform, beam.GroupByKey):
            self.found[node.full_label] = node.inputs[0]

    def enter_composite_transform(self, node: AppliedPTransform) -> None:
        if type(node.transform).__name__ == "RunModel":
            self.found[f"{node.full_label} in"] = node.inputs[0]
            self.found[f"{node.full_label} out"] = node.outputs[None]
        self.visit_transform(node)


def run(transform: beam.PTransform) -> dict[str, Crossing]:
    """Run a pipeline in memory; what crossed each of its shuffles."""
    pipeline = Engine(workers=1).pipeline()
    pipeline | transform
    seen = Find()
    pipeline.visit(seen)
    for name, elements in seen.found.items():
        coder = typecoders.registry.get_coder(elements.element_type)
        elements | f"Count {name}" >> beam.ParDo(CountBytes(name, coder))
    result = pipeline.run()
    result.wait_until_finish()
    sizes = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["distributions"]
    return {
        size.key.metric.name: Crossing(
            elements=size.committed.count, bytes=size.committed.sum, largest=size.committed.max
        )
        for size in sizes
    }
