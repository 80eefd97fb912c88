"""What flows between the stages: small frozen records, changed only by `dataclasses.replace`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a record lies in the crawl, enough to read it again and to prove what was read."""

    warc: str  # path or URL of the WARC file
    offset: int  # of the record's gzip member, in bytes of the file
    length: int  # of that member, in bytes
    digest: str  # WARC-Payload-Digest as stored, or "" where the record has none
    timestamp: str  # WARC-Date: when the record was captured, e.g. 2019-04-25T12:57:54Z


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """One picture as a page mentions it."""

    url: str  # absolute; resolved against <base href> and the page's URL
    position: int  # how many lines (of a Page) or sentences (of a Document) stand before it
    alt: str = ""
    caption: str = ""  # text of the <figcaption> of its <figure>


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One HTML page: its lines of text, as Common Crawl's WET has them, and its pictures, in DOM order."""

    url: str
    lines: tuple[str, ...]
    images: tuple[ImageRef, ...]
    signals: tuple[tuple[str, str], ...] = ()  # page-level opt-out signals: (name, value), as found
    source: Source | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One C4 document with the pictures of its page."""

    url: str
    sentences: tuple[str, ...]
    images: tuple[ImageRef, ...]
    signals: tuple[tuple[str, str], ...]
    source: Source
