"""What to build: one frozen dataclass a stage, and the named builds as functions."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from filters.size import SizeRules
from filters.text import TextRules
from filters.url import UrlRules
from mmc4_builder.fetch import FetchConfig
from mmc4_builder.html import HtmlLimits
from mmc4_builder.images import ImageRules
from mmc4_builder.shards import Format
from mmc4_builder.warc import WarcLimits

ImageSource = Literal["archive", "live", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsConfig:
    """Stage 1. `c4` names released C4 files; without any, C4's rules are applied to the crawl's own pages."""

    warc: WarcLimits = WarcLimits()
    html: HtmlLimits = HtmlLimits()
    text: TextRules = TextRules()
    min_english: float = 0.99  # C4: langdetect's probability
    bad_words: tuple[str, ...] = ()
    c4: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _share("min_english", self.min_english)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesConfig:
    """Stage 2."""

    source: ImageSource = "live"
    urls: UrlRules = UrlRules()
    rules: ImageRules = ImageRules()
    fetch: FetchConfig | None = None  # needed for live pictures

    def __post_init__(self) -> None:
        if self.source != "archive" and self.fetch is None:
            raise ValueError(f"images from source {self.source!r} need a fetch configuration with a contact")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresConfig:
    """Stage 3."""

    clip: str = "ViT-L-14:openai"  # `tiny`, or MODEL:PRETRAINED of open_clip, or MODEL:path


@dataclass(frozen=True, slots=True, kw_only=True)
class InterleaveConfig:
    """Stage 4: policy. Changing it runs no model and fetches nothing."""

    size: SizeRules = SizeRules()
    max_distance: int = 5  # of perceptual hashes within a document (MMC4 §3)
    max_occurrences: int = 10  # documents that show the same picture (MMC4 §3)
    min_similarity: float = 0.15  # of a picture to its best sentence (MMC4 §3)
    sentences: tuple[int, int] = (1, 1 << 30)  # least and most
    images: tuple[int, int] = (1, 1 << 30)
    min_core_fraction: float = 0.0  # share of the matched pictures that are above 0.25
    core: bool = False  # names the files v3 instead of v2

    def __post_init__(self) -> None:
        _share("min_core_fraction", self.min_core_fraction)
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
class Build:
    """Everything that decides what comes out. Where and how fast it runs is not here."""

    name: str
    documents: DocumentsConfig = field(default_factory=DocumentsConfig)
    images: ImagesConfig
    scores: ScoresConfig = field(default_factory=ScoresConfig)
    interleave: InterleaveConfig = field(default_factory=InterleaveConfig)
    shards: ShardsConfig = field(default_factory=ShardsConfig)


def mmc4(images: ImagesConfig) -> Build:
    """Multimodal C4 as published, faces included."""
    return Build(name="mmc4", images=images)


def mmc4_core(images: ImagesConfig) -> Build:
    """The stricter subset (MMC4 §3): 4-40 sentences, 2-15 pictures, three in four of them above 0.25."""
    core = InterleaveConfig(max_distance=10, sentences=(4, 40), images=(2, 15), min_core_fraction=0.75, core=True)
    return replace(mmc4(images), name="mmc4_core", interleave=core)


def sample(images: ImagesConfig) -> Build:
    """MMC4's rules on the embedded sample crawl, with the tiny CLIP and small tars."""
    return replace(
        mmc4(images),
        name="sample",
        scores=ScoresConfig(clip="tiny"),
        shards=ShardsConfig(documents=50),
    )


BUILDS: dict[str, Callable[[ImagesConfig], Build]] = {"mmc4": mmc4, "mmc4_core": mmc4_core, "sample": sample}


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")
