"""What a build has to do: its stages, their units, and which of them an earlier run has done."""

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import apache_beam as beam

from filters.optout import OptOutRules
from mmc4_builder import commits, storage
from mmc4_builder.commits import Commit
from mmc4_builder.fetch_config import FetchConfig
from mmc4_builder.shards import plan_shards
from mmc4_builder.workspace import Unit
from pipelines import shards
from pipelines.config import Build, ImagesConfig
from pipelines.documents import Documents
from pipelines.image_store import store_units
from pipelines.images import Images
from pipelines.index import parts_of
from pipelines.interleave import Interleave
from pipelines.previous_documents import document_units
from pipelines.previous_images import bucket_units
from pipelines.scores import Scores
from pipelines.shards import Shards
from pipelines.units import unit_fingerprint, units

STAGES = ("documents", "images", "scores", "interleave", "shards")
FORMAT = 2  # of the files between the stages; a build of another format is not continued
# A unit leaves rows for each of 4,096 buckets, and each pair is an address in a shuffle and a read of a range. Units of
# one file would make 3 billion of a crawl of 90,000, and groups of 11 MB; of four, a third of both (docs/scale.md).
MOST_UNITS = 24_000
LISTERS = 16  # commit records looked at side by side: on an object store each look is a request


@dataclass(frozen=True, slots=True, kw_only=True)
class Crawl:
    """The WARC files of a build, as names below a root: the names are what provenance and resumption know."""

    name: str
    root: str  # "" where the names are paths themselves
    warcs: tuple[tuple[str, ...], ...]  # name, and for a local file its size


@dataclass(frozen=True, slots=True)
class Work:
    """The units of one step, and the fingerprint that dates their commits."""

    step: str
    fingerprint: str
    units: tuple[Unit, ...]

    def committed(self, root: str) -> list[Commit]:
        """Records of the units that an earlier run has done under this very configuration."""
        with ThreadPoolExecutor(LISTERS) as pool:
            found = pool.map(partial(self._find, root), self.units)
            return [commit for commit in found if commit is not None]

    def _find(self, root: str, unit: Unit) -> Commit | None:
        return commits.find(root, self.step, unit.name, unit_fingerprint(self.fingerprint, unit))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One pipeline: what it is made of, and the work by which its progress is known, in the order of running."""

    name: str
    transform: beam.PTransform
    work: tuple[Work, ...]

    @property
    def total(self) -> int:
        return sum(len(work.units) for work in self.work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A build: configuration, crawl, and place."""

    build: Build
    crawl: Crawl
    root: str

    @property
    def files(self) -> tuple[Unit, ...]:
        """A unit for each WARC file, or for some where there are very many, or where an index names few records of
        each; what is made of it bears its number through all stages."""
        index, warcs = self.build.documents.index, self.crawl.warcs
        together = index.files_per_unit if index else max(1, math.ceil(len(warcs) / MOST_UNITS))
        groups = (warcs[at : at + together] for at in range(0, len(warcs), together))
        return tuple(Unit(name=f"{n:05d}", inputs=tuple(chain.from_iterable(group))) for n, group in enumerate(groups))

    @property
    def buckets(self) -> tuple[Unit, ...]:
        """Buckets of hosts and hashes: at least twice the files, so that each stays some hundred MB of pictures.

        A power of two, so that a few files more leave the work on the others valid.
        """
        return units(1 << min(12, max(2, (2 * len(self.files) - 1).bit_length())))

    @property
    def stores(self) -> tuple[Unit, ...]:
        """A unit for each tar of img2dataset that takes the place of fetching."""
        return store_units(self.build.images.store) if self.build.images.store else ()

    def fingerprints(self) -> dict[str, str]:
        """By stage: of its own configuration and of everything that it builds on."""
        images, scores, previous = self.build.images, self.build.scores, self.build.previous
        # What builds that add to no other lack is left out, so that those made before there were any stay valid.
        earlier_documents = [previous.removed, *previous.documents.values()]
        own: dict[str, Any] = {
            "documents": (*self._read_at_first(), *([earlier_documents] if previous.builds else ())),
            "images": (
                _what_is_fetched(images),
                [unit.inputs for unit in self.files],
                [unit.inputs for unit in self.stores],
                *([list(previous.images.values())] if previous.builds else ()),
            ),
            "scores": scores,
            "interleave": (self.build.interleave, self.build.documents.near_text),
            "shards": self.build.shards,
        }
        chain: dict[str, str] = {}
        before = str(FORMAT)
        for name in STAGES:
            before = chain[name] = commits.fingerprint(before, own[name])
        return chain

    def _read_at_first(self) -> tuple[Any, ...]:
        """What extraction depends on beside its WARC file: no other document, but what must not come back."""
        config, removed = replace(self.build.documents, near_text=None), self.build.previous.removed
        return (config, len(self.buckets), *([removed] if removed else ()))

    def score_fingerprints(self) -> dict[str, str]:
        """By step of stage 3: vectors do not depend on what the small models make of them."""
        scores, chain = self.build.scores, self.fingerprints()
        vectors = commits.fingerprint(chain["images"], scores.clip, scores.clip_sha256)
        return {
            "embed": vectors,
            "scores": vectors,
            "faces": commits.fingerprint(chain["images"], scores.face_detector, scores.detector_sha256),
            "evaluation": commits.fingerprint(vectors, scores.evaluation, scores.evaluation_sha256),
            "heads": chain["scores"],
        }

    def stage(self, name: str) -> Stage:
        """One stage, planned. That of shards needs the commits of interleave: they tell how many tars there are."""
        make = {
            "documents": self._documents,
            "images": self._images,
            "scores": self._scores,
            "interleave": self._interleave,
            "shards": self._shards,
        }
        return make[name](self.fingerprints()[name])

    def _documents(self, fingerprint: str) -> Stage:
        config, previous = self.build.documents, self.build.previous.builds
        at_first = commits.fingerprint(str(FORMAT), self._read_at_first())
        released = tuple(Unit(name=f"{i:05d}", inputs=(path,)) for i, path in enumerate(config.c4))
        everything = commits.fingerprint(fingerprint, [unit.inputs for unit in self.files])
        near = commits.fingerprint(everything, config.near_text)
        transform = Documents(
            root=self.root,
            crawl_root=self.crawl.root,
            fingerprint=at_first,
            corpus_fingerprint=everything,
            near_fingerprint=near,
            config=config,
            files=self.files,
            buckets=self.buckets,
            previous=previous,
        )
        between = (
            (Work("read_c4", everything, released), Work("join_c4", everything, self.buckets))
            if config.c4
            else (
                *((Work("previous_documents", everything, document_units(previous)),) if previous else ()),
                Work("judge_urls", everything, self.buckets),
                Work("claim_lines", everything, self.files),
                Work("judge_lines", everything, self.buckets),
            )
        )
        first, last = Work("extract", at_first, self.files), Work("documents", everything, self.files)
        if config.index:  # which records are read depends on the whole corpus
            first = Work("extract", everything, self.files)
            between = (
                Work("map_index", everything, units(1)),
                Work("route", everything, self.buckets),
                Work("look_up", everything, parts_of(config.index)),
                Work("pick", everything, self.buckets),
                *between,
            )
        return Stage(name="documents", transform=transform, work=(first, *between, last, *self._near_text(near)))

    def _near_text(self, near: str) -> tuple[Work, ...]:
        config, previous = self.build.documents, self.build.previous.builds
        if not config.near_text:
            return ()
        bands = (Work("previous_bands", near, document_units(previous)),) if previous and not config.c4 else ()
        return (Work("sketch", near, self.files), *bands, Work("near_text", near, self.buckets))

    def _images(self, fingerprint: str) -> Stage:
        config = self.build.images
        transform = Images(
            root=self.root,
            crawl_root=self.crawl.root,
            fingerprint=fingerprint,
            config=config,
            files=self.files,
            buckets=self.buckets,
            stores=self.stores,
            previous=self.build.previous.builds,
        )
        before = bucket_units(self.build.previous.builds)
        work = (
            *((Work("previous_images", fingerprint, before),) if before else ()),
            Work("mention", fingerprint, self.files),
            Work("redirects", fingerprint, units(1)),
            Work("aliases", fingerprint, self.buckets),
            *((Work("index_store", fingerprint, self.stores),) if self.stores else ()),
            Work("images", fingerprint, self.buckets),
            Work("occurrences", fingerprint, self.buckets),
            Work("frequent", fingerprint, units(1)),
        )
        return Stage(name="images", transform=transform, work=work)

    def _scores(self, fingerprint: str) -> Stage:
        config, dated = self.build.scores, self.score_fingerprints()
        transform = Scores(self.root, dated, config, self.files, self.buckets)
        steps = {"embed": self.buckets, "scores": self.files}
        if config.face_detector:
            steps["faces"] = self.buckets
        if config.evaluation:
            steps["evaluation"] = units(1)
        steps["heads"] = self.buckets
        work = tuple(Work(step, dated[step], its_units) for step, its_units in steps.items())
        return Stage(name="scores", transform=transform, work=work)

    def _interleave(self, fingerprint: str) -> Stage:
        near_text = self.build.documents.near_text is not None
        transform = Interleave(self.root, fingerprint, self.build.interleave, self.files, self.buckets, near_text)
        work = (Work("interleave", fingerprint, self.files),)
        return Stage(name="interleave", transform=transform, work=work)

    def _shards(self, fingerprint: str) -> Stage:
        written = commits.load_all(self.root, "interleave", [unit.name for unit in self.files])
        counts = [commit.counts["documents.written"] for commit in written]
        tars = shards.plan(plan_shards(counts, self.build.shards.documents))
        transform = Shards(self.root, fingerprint, self.build.shards, self.build.interleave, tars)
        return Stage(name="shards", transform=transform, work=(Work("shards", fingerprint, tars),))


def remove_stale(root: str, work: Work, valid: Iterable[Commit]) -> int:
    """Delete the records of a step that belong to another configuration, so that a listing tells progress."""
    names = {commit.unit for commit in valid}
    stale = [name for name in commits.done(root, work.step) if name not in names]
    for name in stale:
        storage.remove(commits.path_of(root, work.step, name))
    return len(stale)


def _what_is_fetched(config: ImagesConfig) -> ImagesConfig:
    """Without who fetches and at which pace, which does not change what comes; and without opt-outs: stage 4 applies
    them to what is there, so that a longer list, or a stricter policy, fetches nothing again."""
    own = config.fetch
    fetch = own and FetchConfig(
        contact="https://example.org/", max_bytes=own.max_bytes, max_redirects=own.max_redirects, ports=own.ports
    )
    return replace(config, fetch=fetch, optout=OptOutRules(), optout_keys=())
