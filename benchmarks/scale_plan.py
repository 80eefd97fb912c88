"""From what a step costs for one page or picture to what it costs for one WARC file and for a crawl: factors, no code.

Every factor has its source beside it, and `scale.py` prints them all.
"""

import math
from collections import defaultdict
from dataclasses import dataclass

WARCS = 90_000
BUCKETS = 4096  # of `pipelines.plan.Plan` for so many files
TOGETHER = 4  # files in a unit, likewise


@dataclass(frozen=True, slots=True)
class Factor:
    """A number that is not measured here."""

    value: float
    unit: str
    source: str


FACTORS = {
    "pages": Factor(30_000, "pages a WARC file", "2,710 million pages of CC-MAIN-2024-22, over 90,000 files"),
    "page_kb": Factor(139, "kB of HTML a page", "377 TiB raw of CC-MAIN-2024-22 over its pages, less headers"),
    "warc_mb": Factor(800, "MB a WARC file, gzip", "26.5 kB a page of CC-MAIN-2022-05: 72 TiB, 2,986 million pages"),
    "archived": Factor(0.01, "pictures a page in Common Crawl's files", "assumed; noted, and hardly ever used"),
    "c4_share": Factor(0.146, "documents of C4 a page", "365 million of 2,498 million pages of CC-MAIN-2019-18"),
    "candidates": Factor(0.3, "of pages pass C4's rules for one page", "assumed: twice what is left in the end"),
    "lines": Factor(17, "lines a page that passes", "assumed: fewer than sentences"),
    "pictured": Factor(0.315, "of documents have a picture that can be had", "MMC4: 115 of 365 million"),
    "urls": Factor(11.9, "URLs of pictures a document with any", "MMC4: 1,370 over 115 million"),
    "stored": Factor(0.6, "of URLs give a picture that is stored", "assumed; MMC4 kept 0.43 after all its filters"),
    "sentences": Factor(24.3, "sentences a document", "MMC4: mean of 22,000 documents"),
    "picture_kb": Factor(80, "kB a stored picture", "assumed: 800 px at quality 90"),
    "fetched_kb": Factor(150, "kB fetched for a URL", "assumed"),
    "fetch_ms": Factor(13, "CPU ms to fetch, verify, shrink, hash and store", "benchmarks/images_stage.py, over http"),
    "tflops": Factor(20, "TFLOP/s of one T4 at work", "assumed: 30 % of its 65 in half precision"),
}


def factors_table() -> str:
    """Everything that was not measured here."""
    lines = [f"| {factor.value:,g} | {factor.unit} | {factor.source} |" for factor in FACTORS.values()]
    return "\n".join(["| factor | of what | from where |", "|---|---|---|", *lines])


def value(name: str) -> float:
    return FACTORS[name].value


def drivers() -> dict[str, float]:
    """How much of each thing one WARC file of a crawl holds: what the costs of steps are multiplied with."""
    documents = value("pages") * value("c4_share") * value("pictured")
    candidates = value("pages") * value("candidates")
    urls = documents * value("urls")
    return {
        "html_mb": value("pages") * value("page_kb") / 1000,
        "archived": value("pages") * value("archived"),
        "candidates": candidates,
        "lines": candidates * value("lines"),
        "documents": documents,
        "urls": urls,
        "pictures": urls * value("stored"),
        "sentences": documents * value("sentences"),
    }


STEPS = {  # step -> stage, and what its costs grow with
    "extract": ("documents", "html_mb"),
    "judge_urls": ("documents", "candidates"),
    "claim_lines": ("documents", "lines"),
    "judge_lines": ("documents", "lines"),
    "documents": ("documents", "candidates"),
    "mention": ("images", "urls"),
    "redirects": ("images", "urls"),
    "aliases": ("images", "urls"),
    "images": ("images", "urls"),
    "occurrences": ("images", "pictures"),
    "frequent": ("images", "pictures"),
    "embed": ("scores", "pictures"),
    "scores": ("scores", "documents"),
    "heads": ("scores", "pictures"),
    "interleave": ("interleave", "documents"),
    "shards": ("shards", "documents"),
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """Rows that units leave for others: for each pair of units that has some, an address goes through the shuffle."""

    stage: str
    name: str
    reader: str  # step that gets them; what one step gets comes together in one group
    rows: str  # that one WARC file has, at most
    to: str  # bucket or file; `between`: from buckets to buckets


EXCHANGES = (
    Exchange("documents", "urls", "judge_urls", "candidates", "bucket"),
    Exchange("documents", "url_losers", "claim_lines", "candidates", "file"),
    Exchange("documents", "lines", "judge_lines", "lines", "bucket"),
    Exchange("documents", "url_losers", "documents", "candidates", "file"),
    Exchange("documents", "line_losers", "documents", "lines", "file"),
    Exchange("images", "mentions", "images", "urls", "bucket"),
    Exchange("images", "pages", "images", "documents", "bucket"),
    Exchange("images", "archive", "images", "archived", "bucket"),
    Exchange("images", "occurrences", "occurrences", "pictures", "between"),
    Exchange("scores", "facts", "scores", "urls", "file"),
    Exchange("scores", "totals", "heads", "pictures", "between"),
    Exchange("interleave", "page_statements", "interleave", "documents", "file"),
    Exchange("interleave", "opinions", "interleave", "pictures", "file"),
)


def pairs(rows: float) -> float:
    """Buckets that some of so many rows go to, when each goes anywhere."""
    return BUCKETS * (1 - math.exp(-rows / BUCKETS))


def addresses(exchange: Exchange, together: int = TOGETHER) -> float:
    """That an exchange shuffles in a whole crawl, with `together` WARC files in a unit."""
    if exchange.to == "between":
        return pairs(drivers()[exchange.rows] * WARCS / BUCKETS) * BUCKETS
    return pairs(drivers()[exchange.rows] * together) * WARCS / together


def of_stage(stage: str, together: int = TOGETHER) -> float:
    """Addresses that a stage shuffles in a whole crawl."""
    return sum(addresses(exchange, together) for exchange in EXCHANGES if exchange.stage == stage)


def largest_group(stage: str, together: int = TOGETHER) -> float:
    """Addresses that come together for one unit, at most."""
    groups: dict[str, float] = defaultdict(float)
    for exchange in EXCHANGES:
        if exchange.stage == stage:
            receivers = WARCS / together if exchange.to == "file" else BUCKETS
            groups[exchange.reader] += addresses(exchange, together) / receivers
    return max(groups.values(), default=0.0)


def vit_l_14() -> dict[str, float]:
    """Floating-point operations of a picture and of a sentence: two for each weight and token, and attention."""
    image = _tower(layers=24, width=1024, tokens=257) + 2 * 256 * (3 * 14 * 14) * 1024
    return {"pictures": image, "sentences": _tower(layers=12, width=768, tokens=77)}


def _tower(*, layers: int, width: int, tokens: int) -> float:
    return layers * (2 * tokens * 12 * width**2 + 4 * tokens**2 * width)


def gpu_seconds() -> float:
    """Of one WARC file: its pictures, and the sentences of documents that have one."""
    much, flops = drivers(), vit_l_14()
    return sum(much[of] * flops[of] for of in flops) / (value("tflops") * 1e12)
