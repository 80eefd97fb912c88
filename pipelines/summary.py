"""What a build adds up to: funnel.json, timing.json and report.html, from the commit records and the files at rest."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from filters import faces, nsfw
from mmc4_builder import __version__, commits, report, storage
from mmc4_builder.funnel import Funnel, Step, from_counts
from mmc4_builder.workspace import Workspace, read_rows
from pipelines import optout_counts, timing
from pipelines.config import Build, InterleaveConfig
from pipelines.plan import Plan
from pipelines.store import Tars

# Stage, what it counts, and the steps whose commits hold the counts.
STEPS = (
    ("documents", "records", ("extract",)),
    ("documents", "pages", ("extract", "documents")),
    ("documents", "lines", ("extract", "documents")),
    ("documents", "lookups", ("pick",)),
    ("documents", "c4", ("read_c4", "join_c4")),
    ("images", "mentions", ("mention",)),
    ("images", "previous", ("images",)),
    ("images", "urls", ("images",)),
    ("interleave", "images", ("interleave",)),
    ("interleave", "documents", ("interleave",)),
    ("shards", "samples", ("shards",)),
)
FILES = 16  # documents files that the report looks into, spread evenly over the build
DOCUMENTS = 24  # that it shows
DROPPED = 12  # pictures that it shows for each reason
KEPT = 48


def write(plan: Plan) -> Funnel:
    """Write funnel.json, and report.html once there are decisions to show."""
    funnel = add_up(plan)
    storage.write(storage.join(plan.root, "funnel.json"), funnel.to_json().encode())
    took = timing.gather(plan)
    timing.write(plan, took)
    if any(step.stage == "interleave" for step in funnel.steps):
        page = report.render_report(replace(gather(plan, funnel), times=took))
        storage.write(storage.join(plan.root, "report.html"), page.encode())
    return funnel


def add_up(plan: Plan) -> Funnel:
    """The funnel of every step that is wholly done."""
    steps: list[Step] = []
    counts: dict[str, dict[str, int]] = {}
    for stage, unit, sources in STEPS:
        if stage == "shards" and not any(step.stage == "interleave" for step in steps):
            continue
        if unit == "previous" and not plan.build.previous.builds:
            continue
        works = [work for work in plan.stage(stage).work if work.step in sources]
        if not works or any(len(work.committed(plan.root)) < len(work.units) for work in works):
            continue
        for work in works:
            if work.step not in counts:
                records = commits.load_all(plan.root, work.step, [u.name for u in work.units])
                counts[work.step] = commits.total(records)
        both = sum((Counter(counts[work.step]) for work in works), Counter())
        steps += from_counts(stage, [unit], both).steps
    return Funnel(tuple(steps))


@dataclass(slots=True)
class Gathered:
    """What the report shows of the files it looks into."""

    policy: InterleaveConfig
    documents: list[report.ReportDocument] = field(default_factory=list)
    kept: list[report.ReportImage] = field(default_factory=list)
    dropped: dict[str, list[report.DroppedImage]] = field(default_factory=dict)
    similarity: list[float] = field(default_factory=list)
    sides: list[float] = field(default_factory=list)
    sentences: list[float] = field(default_factory=list)
    images: list[float] = field(default_factory=list)


def gather(plan: Plan, funnel: Funnel) -> report.ReportData:
    """Look into some files of the build, evenly spread, and take out what the report shows."""
    files = plan.files[:: max(1, -(-len(plan.files) // FILES))]
    workspace = Workspace(plan.root, "report", plan.files[0])
    found = Gathered(policy=plan.build.interleave)
    with Tars(workspace) as tars:
        for unit in files:
            for document, decision in _rows(workspace, unit.name):
                _note(found, document, decision, tars)
    totals = {(s.stage, s.unit): s.kept for s in funnel.steps}
    return report.ReportData(
        title=f"MMC4 from {plan.crawl.name}",
        subtitle=f"Built with the configuration {plan.build.name!r}."
        + (
            ""
            if len(files) == len(plan.files)
            else f" Pictures and charts show {len(files)} of {len(plan.files)} files."
        ),
        funnel=funnel,
        facts=(
            ("crawl", plan.crawl.name),
            ("WARC files", f"{len(plan.crawl.warcs):,}"),
            ("configuration", plan.build.name),
            *(("earlier build", build.root) for build in plan.build.previous.builds),
            *_models(plan.build),
            ("mmc4-build", __version__),
        ),
        totals=(
            ("pages read", totals.get(("documents", "records"), 0)),
            ("C4 documents", totals.get(("documents", "pages"), 0)),
            ("pictures stored", totals.get(("images", "urls"), 0)),
            ("documents written", totals.get(("interleave", "documents"), 0)),
            ("pictures interleaved", totals.get(("interleave", "images"), 0)),
        ),
        histograms=_histograms(found),
        documents=tuple(found.documents),
        kept=tuple(found.kept),
        dropped=tuple(d for reason in sorted(found.dropped) for d in found.dropped[reason]),
        optouts=optout_counts.count([workspace.path(f"optout.parquet/{unit.name}.parquet") for unit in plan.files]),
    )


def _models(build: Build) -> tuple[tuple[str, str], ...]:
    """Which models had a say, and what the policy makes of it."""
    scores, policy = build.scores, build.interleave
    face_models = [name for name in (scores.faces, scores.face_detector and "RetinaFace") if name]
    return (
        ("CLIP", scores.clip),
        ("NSFW model", f"{scores.nsfw}, kept up to {policy.max_nsfw}" if scores.nsfw else "none: nothing was dropped"),
        ("face models", " and ".join(face_models) or "none"),
        ("pictures with faces", "dropped" if policy.drop_faces else "kept"),
    )


def _rows(workspace: Workspace, name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    documents = read_rows(workspace.path(f"documents/{name}.parquet"))
    decisions = read_rows(workspace.path(f"interleave/{name}.parquet"))
    return zip(documents, decisions, strict=True)


def _note(found: Gathered, document: dict[str, Any], decision: dict[str, Any], tars: Tars) -> None:
    kept = [image for image in decision["images"] if image["reason"] is None]
    for image in decision["images"]:
        _note_dropped(found, image, decision["reason"], tars)
    if decision["reason"] is not None:
        return
    found.similarity += [image["matched_sim"] for image in kept]
    found.sides += [max(image["width"], image["height"]) for image in kept]
    found.sentences.append(len(document["sentences"]))
    found.images.append(len(kept))
    if len(found.documents) < DOCUMENTS and len(kept) > 1:
        found.documents.append(_document(document, kept, tars))
    elif len(found.kept) < KEPT:
        found.kept += [_picture(image, tars, image["matched_sim"]) for image in islice(kept, 2)]


def _note_dropped(found: Gathered, image: dict[str, Any], document_reason: str | None, tars: Tars) -> None:
    if image["reason"] is None:
        return
    shown = found.dropped.setdefault(image["reason"], [])
    if len(shown) < DROPPED:
        hidden = report.withheld(document_reason or "") or is_sensitive(image, found.policy)
        picture = _picture(image, tars, image["best_sim"], hidden=hidden)
        shown.append(report.DroppedImage(image=picture, reason=image["reason"], detail=document_reason or ""))


def is_sensitive(image: dict[str, Any], policy: InterleaveConfig) -> bool:
    """Whether a dropped picture must not be shown. It may have gone for another reason than the one that hides it."""
    if report.withheld(image["reason"]):
        return True
    if image["nsfw"] is not None and nsfw.reject(image["nsfw"], max_score=policy.max_nsfw):
        return True
    return policy.drop_faces and bool(faces.reject(image["face"], image["faces"], max_score=policy.max_face))


def _document(document: dict[str, Any], kept: list[dict[str, Any]], tars: Tars) -> report.ReportDocument:
    return report.ReportDocument(
        url=document["url"],
        sentences=tuple(document["sentences"]),
        images=tuple(
            report.MatchedImage(
                image=_picture(image, tars, image["matched_sim"]),
                matched_index=image["matched_text_index"],
                position=image["position"],
            )
            for image in kept
        ),
        warc=document["warc"],
        offset=document["offset"],
        timestamp=document["timestamp"],
    )


def _picture(
    image: dict[str, Any], tars: Tars, similarity: float | None, *, hidden: bool = False
) -> report.ReportImage:
    return report.ReportImage(
        url=image["url"],
        thumbnail=report.thumbnail(tars.read(image)) if image["sha256"] and not hidden else b"",
        width=image["width"] or 0,
        height=image["height"] or 0,
        similarity=similarity,
        alt=image["alt"],
    )


def _histograms(found: Gathered) -> tuple[report.Histogram, ...]:
    return (
        report.histogram("similarity of matched pairs", found.similarity, 30),
        report.histogram("longest side of the pictures", found.sides, 20, "px"),
        report.histogram("sentences per document", found.sentences, 20, "sentences"),
        report.histogram("pictures per document", found.images, 15, "pictures"),
    )
