"""The parts of the report with pictures: documents as matched, and galleries of kept and dropped."""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from itertools import groupby, islice

from mmc4_builder.report_chart import bar
from mmc4_builder.report_data import DroppedImage, MatchedImage, ReportDocument, ReportImage
from mmc4_builder.report_html import Html, clip, element, join, link

MAX_THUMBNAIL = 100_000  # bytes; what is larger was not made by `thumbnail`
MAX_SENTENCES = 200  # of one document
MAX_DOCUMENT_IMAGES = 40
FULL_BAR = 0.4  # similarity; CLIP ViT-L/14 hardly goes above it for a true pair

# A report is passed around. It must not spread what was dropped to protect somebody.
# Words of reasons, whoever invents the next one.
WITHHELD = frozenset(
    ("nsfw", "csam", "face", "faces", "optout", "opt", "noai", "noimageai", "robots", "tdm", "removed")
)


def withheld(reason: str) -> bool:
    """Whether what is dropped for this reason is named, not shown."""
    return not WITHHELD.isdisjoint(re.split(r"[\W_]+", reason.lower()))


def fit(cards: Iterable[Html], budget: int, most: int) -> list[Html]:
    """The first cards, at most `most`, that `budget` bytes hold; one that is too large is passed over."""
    shown: list[Html] = []
    for card in islice(cards, 2 * most):  # or a million cards would be made to find that none fits
        size = len(card.encode())
        if size <= budget:
            budget -= size
            shown.append(card)
        if len(shown) == most:
            break
    return shown


def document_card(document: ReportDocument) -> Html:
    """One document: its sentences in order, each picture beside the sentence that it was given."""
    images = sorted(document.images, key=lambda image: image.position)[:MAX_DOCUMENT_IMAGES]
    sentences = document.sentences[:MAX_SENTENCES]
    numbered = list(enumerate(images, start=1))
    homeless = [_figure(n, image) for n, image in numbered if not 0 <= image.matched_index < len(sentences)]
    left_out = [
        (len(document.sentences) - len(sentences), "sentences"),
        (len(document.images) - len(images), "pictures"),
    ]
    return element(
        "article",
        element("h3", link(document.url, clip(re.sub(r"^https?://(www\.)?", "", document.url), 90))),
        element("p", join(_provenance(document), " \u00b7 "), class_="note"),
        element("ol", join(_lines(sentences, numbered)), class_="lines", start=0),
        element("div", *homeless, class_="pics") if homeless else "",
        *(element("p", f"{n:,} more {what} not shown", class_="note") for n, what in left_out if n),
        class_="card document",
    )


def gallery(tiles: Iterable[Html]) -> Html:
    return element("ul", join(element("li", tile) for tile in tiles), class_="gallery")


def kept_tile(image: ReportImage) -> Html:
    return _tile(image, _size(image), _similarity(image))


def dropped_tile(dropped: DroppedImage) -> Html:
    """One dropped picture. What was dropped to protect somebody, or with such a page, is named, not shown."""
    image = dropped.image
    shown = not withheld(dropped.reason) and not withheld(dropped.detail)
    absence = "no picture" if shown else "withheld"
    detail = element("span", clip(dropped.detail, 120)) if dropped.detail else ""
    return _tile(image, detail, _size(image), _similarity(image), shown=shown, absence=absence)


def _tile(image: ReportImage, *facts: str, shown: bool = True, absence: str = "no picture") -> Html:
    picture = _picture(image) if shown else Html("")
    return element(
        "figure",
        picture or element("div", absence, class_="absent"),
        element("figcaption", join(fact for fact in facts if fact), link(image.url, _name(image.url))),
    )


def _provenance(document: ReportDocument) -> Iterator[str]:
    yield _plural(len(document.images), "picture")
    yield _plural(len(document.sentences), "sentence")
    if document.timestamp:
        yield f"captured {clip(document.timestamp, 40)}"
    if document.warc:
        yield element("code", f"{clip(document.warc, 200)} @ {document.offset}")


def _lines(sentences: tuple[str, ...], images: list[tuple[int, MatchedImage]]) -> Iterator[Html]:
    """Sentences in order. Long runs that no picture touches are folded."""
    last = len(sentences)
    touched = {image.matched_index for _, image in images}
    touched |= {min(max(image.position, 0), last) for _, image in images if not _in_place(image)}
    near = {i for index in touched for i in (index - 1, index, index + 1)}
    for is_near, run in groupby(range(last), near.__contains__):
        indices = list(run)
        lines = [line for i in indices for line in _line(i, sentences, images)]
        if is_near or len(indices) < 3:
            yield join(lines)
        else:
            folded = element("ol", *lines, class_="lines", start=indices[0])
            summary = element("summary", f"{len(indices)} sentences without a picture")
            yield element("li", element("details", summary, folded), class_="fold")
    yield join(_gaps(last, last, images))


def _line(i: int, sentences: tuple[str, ...], images: list[tuple[int, MatchedImage]]) -> Iterator[Html]:
    yield from _gaps(i, len(sentences), images)
    figures = [_figure(n, image) for n, image in images if image.matched_index == i]
    yield element(
        "li",
        element("span", str(i), class_="n", aria_hidden="true"),
        element("p", clip(sentences[i], 600), dir="auto"),
        element("div", *figures, class_="pics") if figures else "",
        class_="matched" if figures else "quiet",
    )


def _gaps(i: int, last: int, images: list[tuple[int, MatchedImage]]) -> Iterator[Html]:
    """A mark where the page had a picture that was given a sentence elsewhere."""
    for n, image in images:
        if min(max(image.position, 0), last) == i and not _in_place(image):
            yield element("li", element("span", f"picture {n} in the page"), class_="gap")


def _figure(n: int, matched: MatchedImage) -> Html:
    image = matched.image
    return element(
        "figure",
        _picture(image) or element("div", "no picture", class_="absent"),
        element(
            "figcaption",
            element("strong", f"Picture {n}"),
            _similarity(image),
            element("span", _move(matched)),
            link(image.url, _name(image.url)),
        ),
    )


def _in_place(image: MatchedImage) -> bool:
    """In the page the picture stands right before or right after its sentence."""
    return image.position in (image.matched_index, image.matched_index + 1)


def _move(image: MatchedImage) -> str:
    index = image.matched_index
    if _in_place(image):
        return f"sentence {index}, next to it in the page"
    way, distance = ("down", index - image.position) if index > image.position else ("up", image.position - 1 - index)
    return f"sentence {index}, {distance} {way} from its place in the page"


def _picture(image: ReportImage) -> Html:
    if not image.thumbnail.startswith(b"\xff\xd8") or len(image.thumbnail) > MAX_THUMBNAIL:
        return Html("")
    source = Html("data:image/jpeg;base64," + b64encode(image.thumbnail).decode())
    alt = clip(image.alt, 200) or "picture without alternative text"
    return element("img", src=source, alt=alt, decoding="async")


def _similarity(image: ReportImage) -> Html:
    if image.similarity is None:
        return Html("")
    filled = min(max(round(1000 * image.similarity / FULL_BAR), 0), 1000)
    meter = bar([("kept", filled)], 1000, "")
    return element("span", f"similarity {image.similarity:.3f}", meter, class_="similarity")


def _size(image: ReportImage) -> Html:
    return element("span", f"{image.width} \u00d7 {image.height} px") if image.width else Html("")


def _name(url: str) -> str:
    """What tells pictures of one site apart: the end of the address."""
    return clip(url.split("?")[0].rstrip("/").rsplit("/", 1)[-1] or url, 48)


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
