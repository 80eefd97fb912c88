"""Stage 4: scores and policy -> MMC4 documents, and the decision on every picture and every opt-out."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from filters import ads
from mmc4_builder import key_lists, tombstones, transport
from mmc4_builder.commits import Commit
from mmc4_builder.mmc4_format import docs_stem, to_json, write_docs_zip
from mmc4_builder.workspace import Rows, Unit, Workspace, read_rows
from pipelines import audit
from pipelines.config import InterleaveConfig
from pipelines.decide import Decision, Policy, Subject, decide
from pipelines.schemas import DECISIONS, NEAR_LOSERS, OPINIONS, OPTOUT, PAGE_STATEMENTS
from pipelines.units import Committed, Exchange, Run, Step

KEPT_FACTS = (
    "url", "position", "alt", "sha256", "phash", "width", "height", "store", "store_offset", "store_length",
    "origin", "fetched", "occurrences", "nsfw", "face", "faces",
)  # fmt: skip
NO_OPINION = dict.fromkeys(OPINIONS.names[1:])
MAX_AD_LIST = 50_000_000  # bytes; EasyList has about two million


def interleave(unit: Unit, workspace: Workspace, *, config: InterleaveConfig) -> None:
    """One documents file and its scores -> one docs shard, and the audit of its opt-outs."""
    policy = load_policy(config, workspace.root)
    stem = docs_stem(int(unit.name), no_face=config.drop_faces, core=config.core)
    with (
        workspace.parquet(f"interleave/{unit.name}.parquet", DECISIONS) as decided,
        workspace.parquet(f"optout.parquet/{unit.name}.parquet", OPTOUT) as opted_out,
        workspace.create(f"docs/{stem}.jsonl.zip") as stream,
    ):
        documents = _decided(unit, workspace, policy, decided, opted_out)
        workspace.counts["documents.written"] = write_docs_zip(stream, stem, documents)


def load_policy(config: InterleaveConfig, root: str) -> Policy:
    """The configuration with its lists, and the tombstones of the build."""
    lists = [one.text(transport.read_bytes(one.path, MAX_AD_LIST)) for one in config.ads.lists]
    return Policy(
        config=config,
        opted_out=key_lists.parse("\n".join(config.optout_keys), "--opt-out"),
        removed=tombstones.load(root),
        ad_rules=ads.load(lists) if lists else None,
    )


def _decided(
    unit: Unit, workspace: Workspace, policy: Policy, decided: Rows, opted_out: Rows
) -> Iterator[dict[str, Any]]:
    """The documents that stay, as MMC4 writes them; every decision is counted and noted on the way."""
    line = 0
    for row, said, subject in subjects(unit, workspace):
        decision = decide(subject, policy)
        workspace.tally("documents", decision.reason)
        for reason in decision.reasons:
            workspace.tally("images", reason)
        opted_out.extend(audit.decisions(subject, said, policy))
        stays = decision.document is not None
        decided.append(
            {
                "row": row,
                "reason": decision.reason,
                "line": line if stays else None,
                "images": decision_rows(decision, subject),
            }
        )
        if decision.document is not None:
            line += 1
            yield to_json(decision.document)


def subjects(unit: Unit, workspace: Workspace) -> Iterator[tuple[int, list[audit.Said], Subject]]:
    """Row, what was said of the page, and everything that is decided on, of each document of a file."""
    opinions = {row.pop("url"): row for row in workspace.received("opinions", OPINIONS).to_pylist()}
    by_host = {r["row"]: r["statements"] for r in workspace.received("page_statements", PAGE_STATEMENTS).to_pylist()}
    repeated = set(workspace.received("near_losers", NEAR_LOSERS)["row"].to_pylist())
    columns = ["url", "sentences", "signals", "warc", "offset", "timestamp"]
    documents = read_rows(workspace.path(f"documents/{unit.name}.parquet"), columns)
    scores = read_rows(workspace.path(f"scores/{unit.name}.parquet"))
    for document, scored in zip(documents, scores, strict=True):
        row = scored["row"]
        said = audit.page_statements(document, by_host.get(row, ()))
        subject = Subject(
            url=document["url"],
            sentences=document["sentences"],
            images=[{**image, **opinions.get(image["url"], NO_OPINION)} for image in scored["images"]],
            signals=[(one["name"], one["value"]) for one in said],
            near_duplicate=row in repeated,
        )
        yield row, said, subject


def decision_rows(decision: Decision, subject: Subject) -> list[dict[str, Any]]:
    """A row for each picture, in DOM order; those that stay carry their sentence."""
    rows = []
    for image, reason in zip(subject.images, decision.reasons, strict=True):
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
    buckets: tuple[Unit, ...]
    near_text: bool  # whether near duplicates of text were looked for

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        buckets = pipeline | beam.Create(self.buckets)
        steps = ("images", "heads", *(("near_text",) if self.near_text else ()))
        told = [buckets | Committed(self.root, step) for step in steps]
        run = Step(
            name="interleave",
            root=self.root,
            fingerprint=self.fingerprint,
            run=partial(interleave, config=self.config),
        )
        exchanges = ("page_statements", "opinions", "near_losers")
        return told | beam.Flatten() | Exchange(exchanges, self.files) | Run(run)
