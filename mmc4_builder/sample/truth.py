"""What a perfect pipeline finds in the sample: a verdict for every page and picture, and the true pairs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from mmc4_builder.signals import Signal, Statement

KEPT = "kept"
UNDECIDED = (KEPT, "near_duplicate", "low_similarity", "document_dropped")
"""Verdicts that a face comes before: it is seen on the picture itself, they compare it with what is around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """One picture on one page, in DOM order.

    `label` says what it shows: scene, face and nsfw_standin (drawings with a sentence each), ad, unrelated,
    stock, decoration, or nothing for what is no picture at all.
    """

    url: str  # absolute
    verdict: str  # KEPT or the reason to drop it
    label: str
    sentence: str  # of the page, that describes it; "" for none
    position: int  # how many of the page's sentences stand before it
    alt: str
    statements: tuple[Statement, ...] = ()  # for or against its use: by its host, its response, and its own bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTruth:
    """One capture of one page."""

    url: str
    timestamp: str  # tells two captures of one URL apart
    verdict: str  # KEPT or the reason to drop it
    sentences: tuple[str, ...]  # that stay after C4's rules, without the repeated lines
    repeated: tuple[str, ...]  # lines that other pages have too: at most one page keeps each
    mentions: tuple[Mention, ...]
    signals: tuple[Signal, ...] = ()  # of headers, then of <meta>
    host_says: tuple[Statement, ...] = ()  # of this page, in robots.txt

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(picture URL, sentence) of each kept picture that a sentence describes."""
        return tuple((m.url, m.sentence) for m in self.mentions if m.verdict == KEPT and m.sentence)

    def without_faces(self) -> "PageTruth":
        """The same page for a build that drops faces."""
        mentions = tuple(
            replace(m, verdict="face") if m.label == "face" and m.verdict in UNDECIDED else m for m in self.mentions
        )
        verdict = page_verdict(mentions) if self.verdict == KEPT else self.verdict
        return replace(self, mentions=mentions, verdict=verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """All of it. A picture's verdict belongs to its mention: the same URL may be kept on one page only."""

    pages: tuple[PageTruth, ...]
    duplicate_of: Mapping[str, str]  # picture URL -> URL of the picture with the same bytes, on any page

    def kept(self) -> tuple[PageTruth, ...]:
        return tuple(page for page in self.pages if page.verdict == KEPT)

    def mentions(self) -> Iterator[tuple[PageTruth, Mention]]:
        for page in self.pages:
            for mention in page.mentions:
                yield page, mention

    def without_faces(self) -> "Truth":
        """The truth about the fewer-faces subset."""
        return replace(self, pages=tuple(page.without_faces() for page in self.pages))


def page_verdict(mentions: tuple[Mention, ...]) -> str:
    """Of a page that nothing speaks against but its pictures."""
    return KEPT if any(mention.verdict == KEPT for mention in mentions) else "no_images_left"
