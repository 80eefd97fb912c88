"""What the report shows: small frozen records, histograms of numbers and thumbnails of pictures."""

import io
import math
import sys
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from PIL import Image

from mmc4_builder.funnel import Funnel
from mmc4_builder.timing_sums import Times

MAX_PIXELS = 50_000_000  # of a picture to make a thumbnail of; more is a decompression bomb
MAX_BINS = 200
MAX_OPTOUT_ROWS = 20  # of each table on opt-outs
FORMATS = ("JPEG", "PNG", "GIF", "WEBP")


class ThumbnailError(ValueError):
    """Bytes that no thumbnail can be made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How many values fall between each edge and the next; the last bin holds its upper edge too."""

    name: str
    unit: str  # of the values: px, sentences; "" for a plain number
    edges: tuple[float, ...]  # one more than `counts`, rising
    counts: tuple[int, ...]
    outside: int = 0  # values beyond the edges, and NaN
    median: float | None = None  # of all values that are numbers
    marks: tuple[tuple[str, float], ...] = ()  # thresholds to draw: (("kept from", 0.15),)

    def __post_init__(self) -> None:
        if len(self.counts) > MAX_BINS:
            raise ValueError(f"{self.name}: {len(self.counts)} bins cannot be drawn; use {MAX_BINS} at most")
        rising = all(low < high for low, high in zip(self.edges, self.edges[1:], strict=False))
        if len(self.edges) != len(self.counts) + 1 or not rising:
            raise ValueError(f"{self.name}: {len(self.counts)} bins need as many rising edges + 1: {self.edges}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportImage:
    """One picture, small enough to be embedded."""

    url: str
    thumbnail: bytes = b""  # JPEG, of `thumbnail`; empty where there is no picture to show
    width: int = 0  # of the picture, not of the thumbnail; 0 where unknown
    height: int = 0
    similarity: float | None = None
    alt: str = ""  # what the page gives as the picture's text


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedImage:
    """A picture of a document: the sentence that it was given, and where the page had it."""

    image: ReportImage
    matched_index: int  # of the sentence
    position: int  # how many sentences stand before it in the page


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDocument:
    """One document with all its pictures and where it came from."""

    url: str
    sentences: tuple[str, ...]
    images: tuple[MatchedImage, ...]
    warc: str = ""  # path or URL of the WARC file
    offset: int = 0  # of the record in it, in bytes
    timestamp: str = ""  # when the page was captured


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedImage:
    """A picture that was not kept, and why."""

    image: ReportImage
    reason: str
    detail: str = ""  # of this one picture: "HTTP 404", or why its document goes


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """An opt-out statement as it was found, and what came of it."""

    name: str  # header:x-robots-tag, robots:GPTBot
    value: str
    decision: str  # refused or noted
    reason: str  # why, where it refuses; else ""
    pages: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusingHost:
    """A host, and how much of it was refused."""

    host: str
    reasons: tuple[str, ...]  # the most frequent first
    pages: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OptOuts:
    """The audit of opt-outs in numbers: the largest counts first, and how many there are in all."""

    signals: tuple[Signal, ...]
    signals_in_all: int
    hosts: tuple[RefusingHost, ...] = ()
    hosts_in_all: int = 0
    signals_lost: int = 0  # a count may be too low by so much, where there were too many to remember
    hosts_lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything on the report. Nothing else goes in, no clock: the same data give the same bytes."""

    title: str
    subtitle: str
    funnel: Funnel
    facts: tuple[tuple[str, str], ...] = ()  # crawl, configuration, versions, date of the crawl
    totals: tuple[tuple[str, int], ...] = ()  # the few numbers to read first
    histograms: tuple[Histogram, ...] = ()
    documents: tuple[ReportDocument, ...] = ()
    kept: tuple[ReportImage, ...] = ()
    dropped: tuple[DroppedImage, ...] = ()
    optouts: OptOuts | None = None
    times: Times | None = None  # the one part that differs from run to run


def histogram(name: str, values: Iterable[float], bins: int | Sequence[float], unit: str = "") -> Histogram:
    """Count values into equal bins from the least to the greatest, or between the given edges."""
    numbers = list(values)
    finite = sorted(value for value in numbers if math.isfinite(value))
    edges = _equal_edges(finite, bins) if isinstance(bins, int) else tuple(float(edge) for edge in bins)
    counts = [0] * (len(edges) - 1)
    for value in finite:
        if edges[0] <= value <= edges[-1]:
            counts[min(bisect_right(edges, value) - 1, len(counts) - 1)] += 1
    return Histogram(
        name=name,
        unit=unit,
        edges=edges,
        counts=tuple(counts),
        outside=len(numbers) - sum(counts),
        median=median(finite) if finite else None,
    )


def _equal_edges(ordered: list[float], bins: int) -> tuple[float, ...]:
    """Edges from the least value to the greatest; fewer where floats lie too far apart for so many."""
    low, high = (ordered[0], ordered[-1]) if ordered else (0.0, 1.0)
    if low == high:
        pad, limit = max(0.5, abs(low) / 1000), sys.float_info.max
        low, high = max(-limit, low - pad), min(limit, high + pad)
    # weighted, not `low + step * i`: the difference of two floats may be infinite
    inner = (low * (1 - i / bins) + high * (i / bins) for i in range(1, bins))
    return tuple(sorted({low, high, *(edge for edge in inner if low < edge < high)}))


def thumbnail(picture: bytes, side: int = 200) -> bytes:
    """A JPEG of at most `side` x `side` px, without metadata. ThumbnailError if there cannot be one."""
    try:
        return _shrink(picture, side)
    except ThumbnailError:
        raise
    except Exception as error:  # for hostile bytes Pillow raises a dozen kinds, and names no closed set
        raise ThumbnailError(f"no thumbnail of {len(picture):,} bytes: {error!r}") from error


def _shrink(picture: bytes, side: int) -> bytes:
    with Image.open(io.BytesIO(picture), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ThumbnailError(f"{image.width} x {image.height} px is more than {MAX_PIXELS:,} pixels")
        image.draft("RGB", (side * 2, side * 2))  # lets libjpeg decode at a fraction of the size
        small = _opaque(image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    small.info = {}  # Pillow copies a JPEG's comment, which may be 64 KiB of anything
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80, optimize=True)
    return out.getvalue()


def _opaque(image: Image.Image) -> Image.Image:
    """RGB on white: black behind a transparent logo would hide it."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layers = image.convert("RGBA")
        ground = Image.new("RGBA", layers.size, "white")
        return Image.alpha_composite(ground, layers).convert("RGB")
    return image.convert("RGB")
