"""What to build: one frozen dataclass a stage, and the named builds as functions."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from filters import blank, nsfw
from filters.ads import AdRules
from filters.contamination import ContaminationRules
from filters.near_text import NearTextRules
from filters.optout import OptOutRules
from filters.size import SizeRules
from filters.text import TextRules
from filters.url import UrlRules
from mmc4_builder.columnar_index import IndexRules
from mmc4_builder.fetch_config import FetchConfig
from mmc4_builder.html import HtmlLimits
from mmc4_builder.images import ImageRules
from mmc4_builder.shards import Format
from mmc4_builder.warc import WarcLimits

ImageSource = Literal["archive", "live", "both", "store"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsConfig:
    """Stage 1. `c4` names released C4 files; without any, C4's rules are applied to the crawl's own pages."""

    warc: WarcLimits = WarcLimits()
    html: HtmlLimits = HtmlLimits()
    text: TextRules = TextRules()
    min_english: float = 0.99  # C4: langdetect's probability
    bad_words: tuple[str, ...] = ()
    c4: tuple[str, ...] = ()
    index: IndexRules | None = None  # find the pages of `c4` in the crawl's index instead of reading all of it
    crawl_robots: bool = False  # read Common Crawl's robotstxt files beside the WARC files
    near_text: NearTextRules | None = None  # look for documents that say nearly the same

    def __post_init__(self) -> None:
        _share("min_english", self.min_english)
        if self.index and not self.c4:
            raise ValueError("the index finds the pages of released C4: name its files in c4, or give no index")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesConfig:
    """Stage 2. Opt-outs are policy, and applied in stage 4; here they only spare requests that would be in vain."""

    source: ImageSource = "live"
    urls: UrlRules = UrlRules()
    rules: ImageRules = ImageRules()
    fetch: FetchConfig | None = None  # needed for live pictures
    store: str | None = None  # folder of img2dataset's tars, for the source `store`
    optout: OptOutRules = OptOutRules()
    optout_keys: tuple[str, ...] = ()  # domains, URLs and hashes of a list that the user gives
    frequent_from: int = 5  # documents; pictures that so many show are looked for in near copies too

    def __post_init__(self) -> None:
        if self.source in ("live", "both") and self.fetch is None:
            raise ValueError(f"images from source {self.source!r} need a fetch configuration with a contact")
        if (self.source == "store") != (self.store is not None):
            raise ValueError(f"source {self.source!r} with the store {self.store!r}; give both, or neither")
        if self.frequent_from < 2:
            raise ValueError(f"frequent_from must be at least 2 documents, got {self.frequent_from}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresConfig:
    """Stage 3. Changing anything but `clip` embeds nothing anew."""

    clip: str = "ViT-L-14:openai"  # `tiny`, or MODEL:PRETRAINED of open_clip, or MODEL:path
    nsfw: str | None = None  # weights of the classifier on CLIP vectors: `released`, `tiny`, a path or a URL
    faces: str | None = None  # the distilled face model: `tiny`, or a file of --fit-faces
    face_detector: str | None = None  # RetinaFace on every picture: `released`, or the path of its weights
    evaluation: str | None = None  # folder of pictures that must not be trained on
    frequent_distance: int = 5  # bits within which a picture counts with a frequent one
    # Of weights that are files, and of the list of evaluation pictures: others under their names are noticed.
    clip_sha256: str = ""
    detector_sha256: str = ""
    evaluation_sha256: str = ""
    head_sha256s: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InterleaveConfig:
    """Stage 4: policy. Changing it runs no model and fetches nothing."""

    optout: OptOutRules = OptOutRules()
    optout_keys: tuple[str, ...] = ()
    size: SizeRules = SizeRules()
    ads: AdRules = AdRules()
    min_detail: float = blank.MIN_DETAIL
    max_nsfw: float = 0.1  # MMC4 §3
    drop_faces: bool = False
    max_face: float = 0.5  # probability of the distilled model; its own file knows the one for its recall
    evaluation: ContaminationRules = ContaminationRules()
    max_distance: int = 5  # of perceptual hashes within a document (MMC4 §3)
    max_occurrences: int = 10  # documents that show the same picture (MMC4 §3)
    min_similarity: float = 0.15  # of a picture to its best sentence (MMC4 §3)
    sentences: tuple[int, int] = (1, 1 << 30)  # least and most
    images: tuple[int, int] = (1, 1 << 30)
    min_core_fraction: float = 0.0  # share of the matched pictures that are above 0.25
    core: bool = False  # names the files v3 instead of v2

    def __post_init__(self) -> None:
        for name in ("min_core_fraction", "max_nsfw", "max_face"):
            _share(name, getattr(self, name))
        for name in ("sentences", "images"):
            least, most = getattr(self, name)
            if not 1 <= least <= most:
                raise ValueError(f"{name} must be (least, most) with 1 <= least <= most, got {(least, most)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardsConfig:
    """Stage 5."""

    documents: int = 1000  # per tar
    format: Format = "mmc4"

    def __post_init__(self) -> None:
        if self.documents < 1:
            raise ValueError(f"documents per shard must be at least 1, got {self.documents}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousBuild:
    """A finished build that this one adds to, as far as workers must know it."""

    root: str
    files: int  # of documents, `00000` and on
    buckets: int  # of pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """Earlier builds in their order, and digests of what is read of them. Where they lie changes nothing."""

    builds: tuple[PreviousBuild, ...] = ()
    documents: Mapping[str, str] = field(default_factory=dict)  # by root: of its documents and their lines
    images: Mapping[str, str] = field(default_factory=dict)  # by root: of what it knows of pictures
    removed: str = ""  # of what was removed from any of them; empty where nothing was


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """Everything that decides what comes out. Where and how fast it runs is not here."""

    name: str
    documents: DocumentsConfig = field(default_factory=DocumentsConfig)
    images: ImagesConfig
    scores: ScoresConfig = field(default_factory=ScoresConfig)
    interleave: InterleaveConfig = field(default_factory=InterleaveConfig)
    shards: ShardsConfig = field(default_factory=ShardsConfig)
    previous: Previous = field(default_factory=Previous)


def as_json(build: Build) -> dict[str, Any]:
    """A build as build.json holds it. One that adds to no other is described as before there were any."""
    described: dict[str, Any] = json.loads(json.dumps(asdict(build)))
    if not build.previous.builds:
        del described["previous"]
    return described


def mmc4(images: ImagesConfig) -> Build:
    """Multimodal C4 as published, faces included; opt-outs, banners and blank pictures go beside."""
    return Build(name="mmc4", images=images, scores=ScoresConfig(nsfw=nsfw.RELEASED))


def mmc4_ff(images: ImagesConfig) -> Build:
    """Fewer faces: pictures with one go, and what is left is assigned anew (MMC4 §3). Needs a face model."""
    return fewer_faces(mmc4(images))


def fewer_faces(build: Build) -> Build:
    """The same build without the pictures in which a model sees a face."""
    return replace(build, name=f"{build.name}_ff", interleave=replace(build.interleave, drop_faces=True))


def mmc4_core(images: ImagesConfig) -> Build:
    """The stricter subset (MMC4 §3): 4-40 sentences, 2-15 pictures, three in four of them above 0.25."""
    core = InterleaveConfig(max_distance=10, sentences=(4, 40), images=(2, 15), min_core_fraction=0.75, core=True)
    return replace(mmc4(images), name="mmc4_core", interleave=core)


def mmc4_core_ff(images: ImagesConfig) -> Build:
    """The stricter subset with fewer faces."""
    return fewer_faces(mmc4_core(images))


def sample(images: ImagesConfig) -> Build:
    """MMC4's rules on the embedded sample crawl, with the tiny CLIP and small tars."""
    return replace(
        mmc4(images),
        name="sample",
        scores=ScoresConfig(clip="tiny", nsfw="tiny", faces="tiny"),
        shards=ShardsConfig(documents=50),
    )


def sample_ff(images: ImagesConfig) -> Build:
    """The sample with fewer faces."""
    return fewer_faces(sample(images))


BUILDS: dict[str, Callable[[ImagesConfig], Build]] = {
    build.__name__: build for build in (mmc4, mmc4_ff, mmc4_core, mmc4_core_ff, sample, sample_ff)
}


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")
