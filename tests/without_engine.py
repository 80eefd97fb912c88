"""Documents and pictures of a small crawl without an engine: the same steps in the same order, in seconds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mmc4_builder.commits import Commit, Piece
from mmc4_builder.workspace import Unit
from pipelines import archive, dedup, documents, images, near_text
from pipelines.build import claim
from pipelines.inherit import inherit
from pipelines.plan import Plan, Work
from pipelines.previous_documents import claim_before, document_units
from pipelines.previous_images import bucket_units, count_before
from pipelines.units import Step, run_unit, units


class Runner:
    """Does steps as a stage would, each with the rows that others left for it."""

    def __init__(self, plan: Plan, stage: str) -> None:
        self.plan = plan
        self.work: dict[str, Work] = {work.step: work for work in plan.stage(stage).work}

    def do(
        self,
        name: str,
        run: Callable[..., None],
        to: Iterable[Unit],
        sources: Sequence[Commit] = (),
        exchanges: tuple[str, ...] = (),
    ) -> list[Commit]:
        step = Step(name=name, root=self.plan.root, fingerprint=self.work[name].fingerprint, run=run)
        return [run_unit(replace(unit, pieces=left_for(unit, sources, exchanges)), step) for unit in to]


def left_for(unit: Unit, sources: Sequence[Commit], exchanges: tuple[str, ...]) -> tuple[Piece, ...]:
    pieces = (piece for commit in sources for piece in commit.pieces.get(unit.name, ()))
    return tuple(sorted((p for p in pieces if p.exchange in exchanges), key=lambda p: (p.exchange, p.source)))


def make_documents(plan: Plan) -> list[Commit]:
    """The stage of documents by C4's rules; the commits of extraction, which hold pictures too."""
    runner, config, count = Runner(plan, "documents"), plan.build.documents, len(plan.buckets)
    builds = plan.build.previous.builds
    reading = partial(documents.extract, config=config, crawl_root=plan.crawl.root, buckets=count)
    extracted = runner.do("extract", reading, plan.files)
    before = (
        runner.do("previous_documents", partial(claim_before, builds=builds, buckets=count), document_units(builds))
        if builds
        else []
    )
    judging = partial(dedup.judge_urls, adds=bool(builds))
    urls = runner.do("judge_urls", judging, plan.buckets, extracted + before, ("urls", "previous_urls"))
    claims = runner.do("claim_lines", partial(dedup.claim_lines, buckets=count), plan.files, urls, ("url_losers",))
    judging = partial(dedup.judge_lines, adds=bool(builds))
    lines = runner.do("judge_lines", judging, plan.buckets, claims + before, ("lines", "previous_lines"))
    runner.do("documents", partial(documents.finish, config=config), plan.files, urls + lines, dedup.VERDICTS)
    if config.near_text:
        sketching = partial(near_text.sketch, rules=config.near_text, buckets=count)
        sketched = runner.do("sketch", sketching, plan.files)
        if builds:
            looking = partial(near_text.sketch_before, builds=builds, buckets=count)
            sketched += runner.do("previous_bands", looking, document_units(builds))
        runner.do("near_text", near_text.judge, plan.buckets, sketched, ("bands", "previous_bands"))
    return extracted


def make_images(plan: Plan, extracted: list[Commit]) -> None:
    """The stage of images."""
    runner, config, count = Runner(plan, "images"), plan.build.images, len(plan.buckets)
    builds = plan.build.previous.builds
    mentioned = runner.do("mention", partial(images.mention, config=config, buckets=count), plan.files)
    following = partial(archive.follow_redirects, buckets=count)
    redirects = runner.do("redirects", following, units(1), extracted, ("redirects",))
    aliases = runner.do(
        "aliases",
        partial(archive.alias, buckets=count),
        plan.buckets,
        extracted + redirects,
        ("archive", "aliases"),
    )
    storing = partial(
        images.store, config=config, crawl_root=plan.crawl.root, buckets=count, previous=plan.build.previous.builds
    )
    shown = runner.do("images", storing, plan.buckets, extracted + aliases + mentioned, images.RECEIVED)
    if builds:
        shown += runner.do("previous_images", partial(count_before, builds=builds, buckets=count), bucket_units(builds))
    counting = partial(images.count_occurrences, frequent_from=config.frequent_from)
    counted = runner.do("occurrences", counting, plan.buckets, shown, ("occurrences", "previous_occurrences"))
    runner.do("frequent", images.list_frequent, units(1), counted, ("frequent",))


def built(plan: Plan, **again: Any) -> Plan:
    """Both stages, and build.json; the plan, to be built upon."""
    claim(plan, reconfigure=bool(again.get("reconfigure")))
    inherit(plan)
    make_images(plan, make_documents(plan))
    return plan
