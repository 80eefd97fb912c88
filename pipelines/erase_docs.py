"""A removal's work on decisions: documents that lost something are decided anew, and their tars written anew."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import pyarrow as pa

from mmc4_builder import commits, storage, tombstones
from mmc4_builder.mmc4_format import docs_stem, read_docs_zip, to_json, write_docs_zip
from mmc4_builder.workspace import Rows, Unit, Workspace, read_rows
from pipelines import erase, erase_files, replacement, shards
from pipelines.config import InterleaveConfig, ShardsConfig
from pipelines.decide import Decision, Policy, Subject, decide
from pipelines.erase import REMOVED, Marks, Row
from pipelines.erase_units import leave_sorted, left_before
from pipelines.interleave import decision_rows, load_policy, subjects
from pipelines.schemas import DECISIONS

# exchange/slots: places of documents that changed, to the tars that hold them.
SLOTS = pa.schema([("unit", pa.string()), ("line", pa.int32())])


@dataclass(slots=True)
class Losses:
    """What the documents of one file have lost, by row."""

    documents: set[int] = field(default_factory=set)
    pictures: dict[int, set[str]] = field(default_factory=dict)
    texts: set[int] = field(default_factory=set)  # lines of documents that merely name what went

    def __bool__(self) -> bool:
        return bool(self.documents or self.pictures or self.texts)


def redecide(unit: Unit, workspace: Workspace, *, config: InterleaveConfig, tars: tuple[Unit, ...]) -> None:
    """One documents file and its scores, from which things were erased -> its decisions and its docs shard."""
    changed = {(row["unit"], row["line"]) for row in left_before(workspace, "slots")}
    marks = Marks(keys=tombstones.load(workspace.root))
    stem = docs_stem(int(unit.name), no_face=config.drop_faces, core=config.core)
    change = replacement.begin(workspace.root, "erase_docs", unit)
    (record,) = commits.load_all(workspace.root, "interleave", [unit.name])
    losses = find_losses(unit, workspace, stem, marks)
    lost = frozenset(url for urls in losses.pictures.values() for url in urls)
    marks = replace(marks, urls=lost)
    audit_path = f"optout.parquet/{unit.name}.parquet"
    erase_files.parquet(audit_path, change, erase_files.rows_of(audit_path, marks))
    if losses:
        again = Again(losses=losses, marks=marks, counts=dict(record.counts), slots=set())
        with (
            change.parquet(f"interleave/{unit.name}.parquet", DECISIONS) as rows,
            change.create(f"docs/{stem}.jsonl.zip") as stream,
        ):
            write_docs_zip(stream, stem, again.run(unit, workspace, config, rows))
        record = replace(record, counts=dict(sorted(again.counts.items())))
        spans = _spans(int(unit.name), tars)
        changed |= {(tar, n) for n in again.slots for tar, start, stop in spans if start <= n < stop}
        workspace.counts["documents.redecided"] += len(losses.pictures)
    leave_sorted(workspace, "slots", changed, SLOTS)  # before anything is in place: afterwards nobody could tell
    workspace.counts["files.rewritten"] += replacement.publish(change, [record])


def find_losses(unit: Unit, workspace: Workspace, stem: str, marks: Marks) -> Losses:
    """What a documents file and its scores hold less than the decisions on them."""
    losses = Losses()
    for row, (url, left, decision) in enumerate(_beside(unit, workspace)):
        lost = {image["url"] for image in decision["images"]} - left
        if not url:
            if decision["reason"] != REMOVED:
                losses.documents.add(row)
        elif lost:
            losses.pictures[row] = lost
        elif erase.clean_value(decision["images"], marks) != decision["images"]:
            losses.texts.add(row)
    kept = (row["row"] for row in read_rows(workspace.path(f"interleave/{unit.name}.parquet"), ["row", "reason"])
            if row["reason"] is None)  # fmt: skip
    with storage.open_read(workspace.path(f"docs/{stem}.jsonl.zip")) as stream:
        for row, doc in zip(kept, read_docs_zip(stream), strict=True):
            if row not in losses.documents and erase.clean_value(doc, marks) != doc:
                losses.texts.add(row)
    return losses


def _beside(unit: Unit, workspace: Workspace) -> Iterator[tuple[str, set[str], Row]]:
    """Address, pictures that are left, and decision, of each document of a file."""
    documents = read_rows(workspace.path(f"documents/{unit.name}.parquet"), ["url"])
    scores = read_rows(workspace.path(f"scores/{unit.name}.parquet"), ["row", "images"])
    decisions = read_rows(workspace.path(f"interleave/{unit.name}.parquet"))
    for document, scored, decision in zip(documents, scores, decisions, strict=True):
        yield document["url"], {image["url"] for image in scored["images"]}, decision


@dataclass(slots=True, kw_only=True)
class Again:
    """Goes through the decisions of one file a second time."""

    losses: Losses
    marks: Marks
    counts: dict[str, int]  # of the record, moved on the way
    slots: set[int]  # places of the documents that changed

    def run(self, unit: Unit, workspace: Workspace, config: InterleaveConfig, rows: Rows) -> Iterator[Row]:
        """The documents that stay, in their order; every decision goes to `rows`."""
        policy = load_policy(config, workspace.root)
        stem = docs_stem(int(unit.name), no_face=config.drop_faces, core=config.core)
        decisions = read_rows(workspace.path(f"interleave/{unit.name}.parquet"))
        with storage.open_read(workspace.path(f"docs/{stem}.jsonl.zip")) as stream:
            docs = read_docs_zip(stream)
            for old, (row, _, subject) in zip(decisions, subjects(unit, workspace), strict=True):
                doc = next(docs) if old["reason"] is None else None
                new, after = self.one(row, old, doc, partial(_decided, subject, policy))
                rows.append(new)
                if doc != after:
                    self.slots.add(old["line"])
                if after is not None:
                    yield after

    def one(
        self, row: int, old: Row, doc: Row | None, decided: "partial[tuple[Decision, Subject]]"
    ) -> tuple[Row, Row | None]:
        """The decision on one document and the document, as they are from now on. Its place stays its own."""
        if row in self.losses.documents:
            self._note(old, REMOVED, {})
            return {**old, "reason": REMOVED, "images": []}, None
        if row not in self.losses.pictures:
            images = erase.clean_value(old["images"], self.marks)
            return {**old, "images": images}, doc and erase.clean_value(doc, self.marks)
        if old["reason"] is not None:
            left = [image for image in old["images"] if image["url"] not in self.losses.pictures[row]]
            self._note(old, old["reason"], {image["url"]: image["reason"] for image in left})
            return {**old, "images": erase.clean_value(left, self.marks)}, None
        decision, subject = decided()
        images = decision_rows(decision, subject)
        self._note(old, decision.reason, {image["url"]: image["reason"] for image in images})
        after = None if decision.document is None else to_json(decision.document)
        return {**old, "reason": decision.reason, "images": images}, after

    def _note(self, old: Row, reason: str | None, reasons: dict[str, str | None]) -> None:
        """Move what the record counts: the document, and each picture that it had."""
        shift(self.counts, "documents", old["reason"], reason)
        for image in old["images"]:
            shift(self.counts, "images", image["reason"], reasons.get(image["url"], REMOVED))


def _decided(subject: Subject, policy: Policy) -> tuple[Decision, Subject]:
    return decide(subject, policy), subject


def shift(counts: dict[str, int], what: str, before: str | None, after: str | None) -> None:
    """One thing that was counted for one reason, or as kept, now counts for another."""
    if before != after:
        for reason, step in ((before, -1), (after, 1)):
            name = f"{what}.kept" if reason is None else f"{what}.dropped.{reason}"
            counts[name] = counts.get(name, 0) + step


def _spans(shard: int, tars: tuple[Unit, ...]) -> list[tuple[str, int, int]]:
    """Which tars hold the documents of one docs shard: name, first place, place behind the last."""
    found = []
    for tar in tars:
        for span in tar.inputs:
            its_shard, start, stop = (int(part) for part in span.split(":"))
            if its_shard == shard:
                found.append((tar.name, start, stop))
    return found


def rewrite_tar(unit: Unit, workspace: Workspace, *, config: ShardsConfig, policy: InterleaveConfig) -> None:
    """One tar of which documents changed -> the same with what they are now; keys of the others stay."""
    if not workspace.received("slots", SLOTS).num_rows:
        return
    (record,) = commits.load_all(workspace.root, "shards", [unit.name])
    change = replacement.begin(workspace.root, "erase_shards", unit)
    shards.write(unit, change, config=config, policy=policy)
    entered, kept = record.counts["samples.entered"], change.counts["samples.kept"]
    counts = {"samples.entered": entered, "samples.kept": kept, f"samples.dropped.{REMOVED}": entered - kept}
    replacement.publish(change, [replace(record, counts=dict(sorted(counts.items())))])
    workspace.counts["tars.rewritten"] += 1
