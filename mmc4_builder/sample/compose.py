"""Pages put together: paragraphs and pictures in an order, as HTML, with the truth beside them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from mmc4_builder.sample.illustrations import NO_MENTION, Illustration
from mmc4_builder.sample.markup import Element, Sheet, Style, content_type, html
from mmc4_builder.sample.pictures import Picture
from mmc4_builder.sample.prose import accented, mention, small_talk
from mmc4_builder.sample.scenes import Scene
from mmc4_builder.sample.truth import KEPT, Mention, PageTruth, page_verdict
from mmc4_builder.sample.words import describe
from mmc4_builder.signals import Statement, header_signals, header_statements

FIRST_CAPTURE = datetime(2026, 4, 18, 6, 0, 0)
NOTICES_SEEN, PICTURES_SEEN = 0, 600  # minutes after it
Paragraph = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A page as the crawl holds it, and the truth about it."""

    body: bytes
    headers: tuple[tuple[str, str], ...]
    truth: PageTruth
    files: tuple[Picture, ...]  # responses that the page's pictures need


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a page says and shows, in order, before it is written down."""

    host: str
    path: str
    elements: tuple[Paragraph | Illustration, ...]
    scheme: str = "https"
    title: str = "Notes"
    language: str = "en"
    style: Style = field(default_factory=Style)
    minute: int = 0  # of the capture, after the first
    verdict: str = KEPT
    repeated: tuple[str, ...] = ()  # lines at its end that other pages have too
    robots: str = ""  # content of its robots meta element
    headers: tuple[tuple[str, str], ...] = ()  # beyond Content-Type
    host_says: tuple[Statement, ...] = ()  # of this page, in robots.txt

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"


class Writer:
    """Writes sentences that no page of the web has had before. Its state is what has been said."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self._said: set[str] = set()

    def talk(self, absent: Sequence[str] = ()) -> str:
        """Small talk; now and then about a kind of thing of `absent`, which no picture of the page shows."""
        if absent and self.rng.random() < 0.04:
            return self._new(lambda: mention(self.rng.choice(absent), self.rng))
        return self._new(lambda: small_talk(self.rng))

    def accented(self) -> str:
        """Small talk that a wrong charset spoils."""
        return self._new(lambda: accented(self.rng))

    def describe(self, scene: Scene) -> str:
        return self._new(lambda: describe(scene, self.rng))

    def paragraphs(self, count: int, absent: Sequence[str] = ()) -> list[Paragraph]:
        """`count` sentences of small talk in paragraphs."""
        return in_paragraphs([self.talk(absent) for _ in range(count)], self.rng)

    def _new(self, say: Callable[[], str]) -> str:
        for _ in range(500):
            if (sentence := say()) not in self._said:
                self._said.add(sentence)
                return sentence
        raise RuntimeError("the sample's grammar has no new sentence left; shorten the pages")


def in_paragraphs(sentences: Sequence[str], rng: random.Random) -> list[Paragraph]:
    """Two to four sentences each."""
    paragraphs, at = [], 0
    while at < len(sentences):
        size = rng.randrange(2, 5)
        paragraphs.append(tuple(sentences[at : at + size]))
        at += size
    return paragraphs


def finish(draft: Draft) -> Document:
    """The page's bytes, and the truth about it."""
    shown: list[Element] = [" ".join(part) if isinstance(part, tuple) else part.shown for part in draft.elements]
    sheet = Sheet(
        host=draft.host,
        scheme=draft.scheme,
        title=draft.title,
        elements=(*shown, *draft.repeated),
        robots=draft.robots,
        language=draft.language,
    )
    headers = (("Content-Type", content_type(draft.style)), *draft.headers)
    files = tuple(file for part in draft.elements if isinstance(part, Illustration) for file in part.files)
    return Document(body=html(sheet, draft.style), headers=headers, truth=_truth(draft), files=files)


def timestamp(minute: int) -> str:
    return (FIRST_CAPTURE + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _truth(draft: Draft) -> PageTruth:
    sentences: list[str] = []
    mentions: list[Mention] = []
    for part in draft.elements:
        if isinstance(part, tuple):
            sentences.extend(part)
        elif part.verdict != NO_MENTION:
            mentions.append(_mention(part, len(sentences)))
    refused = draft.verdict.startswith("optout_")
    if refused:
        mentions = [replace(m, verdict="document_dropped") if m.verdict == KEPT else m for m in mentions]
    read = refused or draft.verdict in (KEPT, "no_images", "no_images_left")  # of others nothing is left to compare
    metas = (("meta:robots", draft.robots),) if draft.robots else ()
    return PageTruth(
        url=draft.url,
        timestamp=timestamp(draft.minute),
        verdict=page_verdict(tuple(mentions)) if draft.verdict == KEPT else draft.verdict,
        sentences=tuple(sentences) if read else (),
        repeated=draft.repeated,
        mentions=tuple(mentions) if read else (),
        signals=(*header_signals(draft.headers), *metas),
        host_says=draft.host_says,
    )


def _mention(one: Illustration, position: int) -> Mention:
    statements = one.host_says
    if one.files:
        file, seen = one.files[-1], timestamp(PICTURES_SEEN)
        statements += header_statements(file.headers, file.url, seen)
        if file.datamining:
            statements += (Statement(name="xmp:datamining", value=file.datamining, source=file.url, seen=seen),)
    return Mention(
        url=one.shown.url,
        verdict=one.verdict,
        label=one.label,
        sentence=one.sentence,
        position=position,
        alt=one.shown.alt,
        statements=statements,
    )
