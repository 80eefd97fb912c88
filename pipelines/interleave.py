"""Stage 4: scores and policy -> MMC4 documents, and the decision on every picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from mmc4_builder.commits import Commit
from mmc4_builder.mmc4_format import docs_stem, to_json, write_docs_zip
from mmc4_builder.workspace import Rows, Unit, Workspace, read_rows
from pipelines.config import InterleaveConfig
from pipelines.decide import Decision, decide
from pipelines.schemas import DECISIONS
from pipelines.units import Run, Step

KEPT_FACTS = (
    "url", "position", "alt", "sha256", "phash", "width", "height", "store", "store_offset", "store_length",
    "origin", "fetched",
)  # fmt: skip


def interleave(unit: Unit, workspace: Workspace, *, config: InterleaveConfig) -> None:
    """One documents file and its scores -> one docs shard."""
    stem = docs_stem(int(unit.name), core=config.core)
    with (
        workspace.parquet(f"interleave/{unit.name}.parquet", DECISIONS) as decisions,
        workspace.create(f"docs/{stem}.jsonl.zip") as stream,
    ):
        workspace.counts["documents.written"] = write_docs_zip(
            stream, stem, _decided(unit, workspace, decisions, config)
        )


def _decided(unit: Unit, workspace: Workspace, decisions: Rows, config: InterleaveConfig) -> Iterator[dict[str, Any]]:
    """The documents that stay, as MMC4 writes them; every decision is counted and noted on the way."""
    documents = read_rows(workspace.path(f"documents/{unit.name}.parquet"), ["url", "sentences"])
    scores = read_rows(workspace.path(f"scores/{unit.name}.parquet"))
    line = 0
    for document, scored in zip(documents, scores, strict=True):
        images = scored["images"]
        decision = decide(document["url"], document["sentences"], images, config)
        workspace.tally("documents", decision.reason)
        for reason in decision.reasons:
            workspace.tally("images", reason)
        stays = decision.document is not None
        decisions.append(
            {
                "row": scored["row"],
                "reason": decision.reason,
                "line": line if stays else None,
                "images": decision_rows(decision, images),
            }
        )
        if decision.document is not None:
            line += 1
            yield to_json(decision.document)


def decision_rows(decision: Decision, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each picture, in DOM order; those that stay carry their sentence."""
    rows = []
    for image, reason in zip(images, decision.reasons, strict=True):
        best = max(image["similarity"], default=None) if image["similarity"] else None
        rows.append({name: image[name] for name in KEPT_FACTS} | {"reason": reason, "best_sim": best})
    if decision.document is not None:
        for index, matched in zip(decision.kept, decision.document.images, strict=True):
            rows[index] |= {
                "image_name": matched.image_name,
                "matched_text_index": matched.matched_text_index,
                "matched_sim": matched.matched_sim,
            }
    return rows


@dataclass
class Interleave(beam.PTransform):
    """Scores -> docs shards."""

    root: str
    fingerprint: str
    config: InterleaveConfig
    files: tuple[Unit, ...]

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        run = partial(interleave, config=self.config)
        step = Step(name="interleave", root=self.root, fingerprint=self.fingerprint, run=run)
        return pipeline | beam.Create(self.files) | Run(step)
