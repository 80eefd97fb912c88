"""Pages that C4's rules drop, pages without pictures, and second captures: each wrong in one way only."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mmc4_builder.sample import illustrations as pictures
from mmc4_builder.sample.compose import Document, Draft, Paragraph, Writer, finish, timestamp
from mmc4_builder.sample.illustrations import Illustration
from mmc4_builder.sample.markup import Style
from mmc4_builder.sample.prose import FOREIGN
from mmc4_builder.sample.scenes import random_scene
from mmc4_builder.sample.truth import PageTruth

BAD_WORDS = ("frobnicate", "grault the quux")
"""Invented stand-ins for a list of words that no page may have: the sample's own configuration uses them."""

LOREM = "Lorem ipsum dolor sit amet, consectetur adipiscing elit sed do eiusmod tempor."
CODE = "The function starts with the line def main() { and then it returns the value of x."
COOKIES = (
    "Our cookie policy explains which files we keep on your computer.",
    "By reading on you accept that this page uses cookies for statistics.",
    "You can withdraw from our privacy policy at any moment you like.",
    "The use of cookies can be switched off in the settings of your browser.",
)
SCRIPTS = (
    "This gallery needs javascript before it can show any picture at all.",
    "Please switch on JavaScript in your browser and load the page again.",
    "Without javascript the order form at the end of the page stays empty.",
    "Older browsers may warn about the javascript of our partners on this page.",
)


def special_pages(hosts: Sequence[str], writer: Writer, minute: int) -> Iterator[Document]:
    """All of them; `minute` is that of the first one's capture."""
    drafts = [*_dropped(writer), *_foreign(writer), *_without_pictures(hosts[0], writer)]
    for number, draft in enumerate(drafts):
        host = hosts[number % len(hosts)]
        path = f"/misc/{number + 1}.html"
        yield finish(replace(draft, host=host, path=path, minute=minute + number))
    yield from _not_html(hosts, minute + 100)
    yield from _second_captures(hosts, writer, minute + 200)


def _draft(elements: Sequence[Paragraph | Illustration], verdict: str) -> Draft:
    return Draft(host="", path="", elements=tuple(elements), verdict=verdict, title="Miscellany")


def _picture(writer: Writer, name: str) -> Illustration:
    """A sound picture, so that the page is dropped for nothing but its text."""
    scene = random_scene(writer.rng, for_sample=True)
    return pictures.sound(scene, "", f"https://img.miscellany.example/{name}.jpg", writer.rng)


def _dropped(writer: Writer) -> Iterator[Draft]:
    lone = (writer.talk(), writer.talk())
    spoiled = {
        "lorem_ipsum": (*writer.paragraphs(6), (LOREM,)),
        "curly_bracket": (*writer.paragraphs(6), (CODE,)),
        "bad_words": (*writer.paragraphs(6), (f"Nobody should {BAD_WORDS[0]} the others in public.",)),
    }
    for verdict, paragraphs in spoiled.items():
        yield _draft([*paragraphs, _picture(writer, verdict)], verdict)
    phrase: list[Paragraph] = [(f"It is rude to {BAD_WORDS[1]} before lunch.",), *writer.paragraphs(5)]
    yield _draft([*phrase, _picture(writer, "phrase")], "bad_words")
    for number, lines in enumerate((COOKIES, SCRIPTS, lone)):
        apart = [(line,) for line in lines]
        yield _draft([*apart, _picture(writer, f"few{number}")], "too_few_sentences")


def _foreign(writer: Writer) -> Iterator[Draft]:
    """Japanese has no spaces, so that C4's rule on words a line takes it before any detector is asked."""
    cases = (
        ("de", Style(), "not_english"),
        ("fr", Style(charset="cp1252"), "not_english"),
        ("es", Style(charset="cp1252", declared="meta"), "not_english"),
        ("ja", Style(charset="shift_jis", declared="meta"), "too_few_sentences"),
        ("ja", Style(charset="shift_jis", declared="nowhere"), "too_few_sentences"),
    )
    for number, (language, style, verdict) in enumerate(cases):
        paragraphs = [(line,) for line in FOREIGN[language]]
        draft = _draft([*paragraphs, _picture(writer, f"{language}{number}")], verdict)
        yield replace(draft, style=style, language=language)


def _without_pictures(host: str, writer: Writer) -> Iterator[Draft]:
    """No picture at all, and none that is left."""
    for _ in range(5):
        yield _draft(writer.paragraphs(12), "no_images")
    folder = f"https://{host}/img/"
    for page, names in enumerate((("logo", "pixel"), ("absent", "cut_jpeg", "gif"), ("noise",)), start=901):
        spoiled = [pictures.faulty(name, folder, 10 * page + n) for n, name in enumerate(names)]
        yield _draft([*writer.paragraphs(9), *spoiled], "no_images_left")


def _not_html(hosts: Sequence[str], minute: int) -> Iterator[Document]:
    bodies = (
        (
            "report.pdf",
            "application/pdf",
            b"%PDF-1.4\n1 0 obj << /Type /Catalog >> endobj\ntrailer << /Root 1 0 R >>\n%%EOF\n",
        ),
        (
            "notes.txt",
            "text/plain; charset=utf-8",
            b"These are plain notes. They have no markup. Nobody will miss them here.\n",
        ),
        ("feed.json", "application/json", b'{"items": ["This is a feed of words.", "It is no page."]}\n'),
        ("style.css", "text/css", b"body { color: black; }\n"),
    )
    for number, (name, kind, body) in enumerate(bodies):
        truth = PageTruth(
            url=f"https://{hosts[number]}/files/{name}",
            timestamp=timestamp(minute + number),
            verdict="not_html",
            sentences=(),
            repeated=(),
            mentions=(),
        )
        yield Document(body=body, headers=(("Content-Type", kind),), truth=truth, files=())


def _second_captures(hosts: Sequence[str], writer: Writer, minute: int) -> Iterator[Document]:
    """Pairs of captures that C4's normal form of the URL makes one page: the newer one stays."""
    variants = (
        ("https", "", ""),  # the very same URL, captured twice
        ("https", "", "?utm_source=letter"),
        ("https", "www.", ""),
        ("http", "", ""),
        ("https", "", "/"),
    )
    for number, (scheme, prefix, suffix) in enumerate(variants):
        host, path, when = hosts[number + 5], f"/again/{number + 1}", minute + 10 * number
        scene = random_scene(writer.rng, for_sample=True)
        sentence = writer.describe(scene)
        shown = pictures.sound(scene, sentence, f"https://{host}/img/again{number}.jpg", writer.rng)
        newer = Draft(
            host=host,
            path=path,
            elements=(*writer.paragraphs(6), (sentence, writer.talk()), shown),
            minute=when + 5,
        )
        older = replace(
            newer,
            scheme=scheme,
            host=prefix + host,
            path=path + suffix,
            elements=(*writer.paragraphs(7), replace(shown, files=())),
            minute=when,
            verdict="duplicate_url",
        )
        # The older capture comes first or last in the crawl: its place must not decide.
        yield from map(finish, (older, newer) if number % 2 else (newer, older))
