"""Stage 5: docs shards and stored pictures -> training tars."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from mmc4_builder import storage
from mmc4_builder.commits import Commit
from mmc4_builder.mmc4_format import docs_stem, read_docs_zip
from mmc4_builder.shards import Sample, Span, sample_key, shard_name, write_shard
from mmc4_builder.workspace import Unit, Workspace, read_rows
from pipelines.config import ShardsConfig
from pipelines.units import Run, Step

SOURCE = ("warc", "offset", "length", "digest", "timestamp")


def plan(spans: Sequence[Sequence[Span]]) -> tuple[Unit, ...]:
    """A unit for each tar; which documents of which docs shards it holds is part of its identity."""
    return tuple(
        Unit(name=f"{number:05d}", inputs=tuple(":".join(map(str, span)) for span in tar))
        for number, tar in enumerate(spans)
    )


def write(unit: Unit, workspace: Workspace, *, config: ShardsConfig, core: bool) -> None:
    """The documents of one tar, with their pictures and where everything came from."""
    number = int(unit.name)
    samples = (
        Sample(key=sample_key(number, position), doc=doc, images=images)
        for position, (doc, images) in enumerate(_documents(unit, workspace, core))
    )
    with workspace.create(f"shards/{shard_name(number, config.format)}") as stream:
        count = write_shard(stream, samples, config.format)
    workspace.tally("samples", None, count)


def _documents(unit: Unit, workspace: Workspace, core: bool) -> Iterator[tuple[dict[str, Any], tuple[bytes, ...]]]:
    with Tars(workspace) as tars:
        for span in unit.inputs:
            shard, start, stop = (int(part) for part in span.split(":"))
            with storage.open_read(workspace.path(f"docs/{docs_stem(shard, core=core)}.jsonl.zip")) as stream:
                docs = islice(read_docs_zip(stream), start, stop)
                rows = islice(_kept_rows(workspace, shard), start, stop)
                for doc, (source, decision) in zip(docs, rows, strict=True):
                    images = tuple(tars.read(image) for image in _in_order(doc, decision))
                    yield with_provenance(doc, source, decision), images


def _kept_rows(workspace: Workspace, shard: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Source and decision of each document of a docs shard, in its order."""
    name = f"{shard:05d}.parquet"
    sources = read_rows(workspace.path(f"documents/{name}"), [*SOURCE, "signals"])
    decisions = read_rows(workspace.path(f"interleave/{name}"))
    return ((s, d) for s, d in zip(sources, decisions, strict=True) if d["line"] is not None)


def _in_order(doc: dict[str, Any], decision: dict[str, Any]) -> list[dict[str, Any]]:
    """The stored pictures in the order of `image_info`."""
    by_name = {image["image_name"]: image for image in decision["images"] if image["reason"] is None}
    return [by_name[info["image_name"]] for info in doc["image_info"]]


def with_provenance(doc: dict[str, Any], source: dict[str, Any], decision: dict[str, Any]) -> dict[str, Any]:
    """The MMC4 document, and for it and each picture where it came from; DOM order stands beside CLIP's."""
    images = [
        {
            **info,
            "dom_text_index": image["position"],
            "alt": image["alt"],
            "sha256": image["sha256"],
            "origin": image["origin"],
            "fetched": image["fetched"],
        }
        for info, image in zip(doc["image_info"], _in_order(doc, decision), strict=True)
    ]
    signals = [[signal["name"], signal["value"]] for signal in source["signals"]]
    provenance = {name: source[name] for name in SOURCE} | {"signals": signals}
    return {**doc, "image_info": images, "provenance": provenance}


class Tars:
    """Reads pictures out of the store by offset; keeps the tars open that it has met."""

    def __init__(self, workspace: Workspace, most: int = 64) -> None:
        self._workspace = workspace
        self._open: dict[str, Any] = {}
        self._most = most

    def __enter__(self) -> "Tars":
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def read(self, image: dict[str, Any]) -> bytes:
        if image["store"] not in self._open:
            if len(self._open) >= self._most:
                self._open.pop(next(iter(self._open))).close()
            self._open[image["store"]] = storage.open_read(self._workspace.path(image["store"]))
        tar = self._open[image["store"]]
        tar.seek(image["store_offset"])
        data: bytes = tar.read(image["store_length"])
        return data


@dataclass
class Shards(beam.PTransform):
    """Docs shards -> tars."""

    root: str
    fingerprint: str
    config: ShardsConfig
    core: bool
    tars: tuple[Unit, ...]

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        run = partial(write, config=self.config, core=self.core)
        step = Step(name="shards", root=self.root, fingerprint=self.fingerprint, run=run)
        return pipeline | beam.Create(self.tars) | Run(step)
