"""The embedded sample: a small illustrated web made by code, its truth, and a CLIP that knows its world."""

from pathlib import Path

from mmc4_builder.sample.truth import Mention, PageTruth, Truth

__all__ = ["Mention", "PageTruth", "Truth", "truth", "write_crawl"]


def write_crawl(root: Path) -> list[Path]:
    """Write the sample crawl below `root` in Common Crawl's layout; return its WARC files."""
    from mmc4_builder.sample.pack import write_crawl as write

    return write(root)


def truth(*, faces: bool = True) -> Truth:
    """What a perfect pipeline finds in it; without `faces`, one that drops them."""
    from mmc4_builder.sample.web import build

    return build().truth if faces else build().truth.without_faces()
