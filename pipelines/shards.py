"""Stage 5: docs shards and stored pictures -> training tars."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from mmc4_builder import storage
from mmc4_builder.commits import Commit
from mmc4_builder.mmc4_format import docs_stem, read_docs_zip
from mmc4_builder.shards import Sample, Span, sample_key, shard_name, write_shard
from mmc4_builder.workspace import Unit, Workspace, read_rows
from pipelines.config import InterleaveConfig, ShardsConfig
from pipelines.store import Tars
from pipelines.units import Run, Step

SOURCE = ("warc", "offset", "length", "digest", "timestamp")


def plan(spans: Sequence[Sequence[Span]]) -> tuple[Unit, ...]:
    """A unit for each tar; which documents of which docs shards it holds is part of its identity."""
    return tuple(
        Unit(name=f"{number:05d}", inputs=tuple(":".join(map(str, span)) for span in tar))
        for number, tar in enumerate(spans)
    )


def write(unit: Unit, workspace: Workspace, *, config: ShardsConfig, policy: InterleaveConfig) -> None:
    """The documents of one tar, with their pictures and where everything came from."""
    number = int(unit.name)
    samples = (
        Sample(key=sample_key(number, position), doc=doc, images=images)
        for position, doc, images in _documents(unit, workspace, policy)
    )
    with workspace.create(f"shards/{shard_name(number, config.format)}") as stream:
        count = write_shard(stream, samples, config.format)
    workspace.tally("samples", None, count)


def _documents(
    unit: Unit, workspace: Workspace, policy: InterleaveConfig
) -> Iterator[tuple[int, dict[str, Any], tuple[bytes, ...]]]:
    """Place in the tar, document and pictures. A document that was removed leaves its place empty."""
    before = 0
    with Tars(workspace) as tars:
        for span in unit.inputs:
            shard, start, stop = (int(part) for part in span.split(":"))
            stem = docs_stem(shard, no_face=policy.drop_faces, core=policy.core)
            with storage.open_read(workspace.path(f"docs/{stem}.jsonl.zip")) as stream:
                for doc, source, decision in _placed(read_docs_zip(stream), _rows(workspace, shard), start, stop):
                    images = tuple(tars.read(image) for image in _in_order(doc, decision))
                    yield before + decision["line"] - start, with_provenance(doc, source, decision), images
            before += stop - start


def _placed(
    docs: Iterator[dict[str, Any]], rows: Iterator[tuple[dict[str, Any], dict[str, Any]]], start: int, stop: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """The documents of a docs shard whose places lie in a range, each with its source and its decision."""
    for source, decision in rows:
        if decision["line"] is None or (decision["line"] < stop and decision["reason"] is not None):
            continue
        if decision["line"] >= stop:
            return
        doc = next(docs)
        if decision["line"] >= start:
            yield doc, source, decision


def _rows(workspace: Workspace, shard: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Source and decision of each row of a documents file."""
    name = f"{shard:05d}.parquet"
    sources = read_rows(workspace.path(f"documents/{name}"), [*SOURCE, "signals"])
    return zip(sources, read_rows(workspace.path(f"interleave/{name}")), strict=True)


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
            "nsfw": image["nsfw"],
            "face": image["face"],
        }
        for info, image in zip(doc["image_info"], _in_order(doc, decision), strict=True)
    ]
    signals = [[signal["name"], signal["value"]] for signal in source["signals"]]
    provenance = {name: source[name] for name in SOURCE} | {"signals": signals}
    return {**doc, "image_info": images, "provenance": provenance}


@dataclass
class Shards(beam.PTransform):
    """Docs shards -> tars."""

    root: str
    fingerprint: str
    config: ShardsConfig
    policy: InterleaveConfig
    tars: tuple[Unit, ...]

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        run = partial(write, config=self.config, policy=self.policy)
        step = Step(name="shards", root=self.root, fingerprint=self.fingerprint, run=run)
        return pipeline | beam.Create(self.tars) | Run(step)
