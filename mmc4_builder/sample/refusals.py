"""Hosts, pages and pictures that say how they may be used: refusals of every kind, and what only looks like one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mmc4_builder.sample import illustrations as pictures
from mmc4_builder.sample.compose import NOTICES_SEEN, Document, Draft, Writer, finish, in_paragraphs, timestamp
from mmc4_builder.sample.illustrations import Illustration
from mmc4_builder.sample.scenes import random_scene
from mmc4_builder.sample.truth import KEPT
from mmc4_builder.signals import Statement

KINDS = ("boat", "castle", "bicycle", "teapot", "snowman")  # one page's pictures must not be taken for one another
OWN = "mmc-build"  # the agent token that robots.txt is asked for
PRIVATE = "Disallow: /img/private/"
AGENTS = ("guildhall.example", "clubrooms.example")
PAPER, PRINTS, FINE_PRINT, ALBUM = (
    "parishpaper.example",
    "printroom.example",
    "fineprint.example",
    "familyalbum.example",
)

ROBOTS = {
    AGENTS[0]: "User-agent: GPTBot\nDisallow: /img/members/\n\nUser-agent: OtherBot\nDisallow: /\n\n"
    f"User-agent: *\n{PRIVATE}\n",
    AGENTS[1]: "User-agent: CCBot\nDisallow: /members/\n",
    PAPER: "User-agent: *\nAllow: /\nContent-Usage: train-ai=y\nContent-Usage: /img/archive/ train-ai=n\n",
}
TDMREP = """[
  {"location": "/img/reserved/*", "tdm-reservation": 1, "tdm-policy": "https://printroom.example/terms.json"},
  {"location": "/img/open/*", "tdm-reservation": 0}
]
"""
REFUSING = (  # header, reason
    (("TDM-Reservation", "1"), "optout_tdm"),
    (("Content-Usage", "train-ai=n"), "optout_content_usage"),
    (("X-Robots-Tag", f"otherbot: nofollow, {OWN}: noimageai"), "optout_header"),
)
HARMLESS = (
    ("TDM-Reservation", "0"),
    ("Content-Usage", "train-ai=y"),
    ("X-Robots-Tag", "otherbot: noai"),
    ("X-Robots-Tag", "max-image-preview:large, unavailable_after: 25 Jun 2035 15:00:00 GMT"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A file in which a host speaks of all its addresses."""

    url: str
    body: str

    @property
    def content_type(self) -> str:
        return "application/json" if self.url.endswith(".json") else "text/plain"


def robots_of(root: str) -> Notice:
    """An ordinary site's: its pages are free, one folder of pictures is not."""
    return Notice(url=f"{root}/robots.txt", body=f"User-agent: *\n{PRIVATE}\n")


def host_says(notice: str, name: str, value: str) -> Statement:
    return Statement(name=name, value=value, source=notice, seen=timestamp(NOTICES_SEEN))


def private(root: str) -> Statement:
    """What the robots.txt of an ordinary site says of its private folder."""
    return host_says(f"{root}/robots.txt", f"robots:{OWN}", PRIVATE)


def notices() -> Iterator[Notice]:
    """Of the hosts below."""
    for host, body in ROBOTS.items():
        yield Notice(url=f"https://{host}/robots.txt", body=body)
    yield Notice(url=f"https://{PRINTS}/.well-known/tdmrep.json", body=TDMREP)


def refusal_pages(writer: Writer, minute: int) -> Iterator[Document]:
    """All of them; `minute` is that of the first one's capture."""
    drafts = [*_agents(writer), *_usage(writer), *_by_response(writer), *_copies(writer)]
    for number, draft in enumerate(drafts):
        yield finish(replace(draft, title="Notes on our terms", minute=minute + number))


def _agents(writer: Writer) -> Iterator[Draft]:
    """robots.txt: for us, for an AI agent, and for an agent that is none."""
    host, club = AGENTS
    root = f"https://{host}"
    shown = [_picture(writer, host, n, folder) for n, folder in enumerate(("img", "img/members", "img/private"))]
    says = host_says(f"{root}/robots.txt", "robots:GPTBot", "Disallow: /img/members/")
    shown[1] = pictures.forbidden(shown[1], "optout_robots_agent", says)
    shown[2] = pictures.forbidden(shown[2], "optout_robots", private(root))
    yield _page(writer, host, "/notes/1.html", shown)
    says = host_says(f"https://{club}/robots.txt", "robots:CCBot", "Disallow: /members/")
    inside = [_picture(writer, club, n) for n in range(2)]
    inside.append(pictures.faulty("cut_jpeg", f"https://{club}/img/", 950))
    page = _page(writer, club, "/members/1.html", inside)
    yield replace(page, verdict="optout_robots_agent", host_says=(says,))
    yield _page(writer, club, "/notes/2.html", [_picture(writer, club, 3)])


def _usage(writer: Writer) -> Iterator[Draft]:
    """Content-Usage in robots.txt, and tdmrep.json."""
    notice = f"https://{PAPER}/robots.txt"
    free = host_says(notice, "robots:content-usage", "train-ai=y")
    shown = [replace(_picture(writer, PAPER, n), host_says=(free,)) for n in range(2)]
    says = host_says(notice, "robots:content-usage", "train-ai=n")
    shown.append(pictures.forbidden(_picture(writer, PAPER, 2, "img/archive"), "optout_content_usage", says))
    yield replace(_page(writer, PAPER, "/notes/1.html", shown), host_says=(free,))
    notice = f"https://{PRINTS}/.well-known/tdmrep.json"
    free = host_says(notice, "tdmrep:tdm-reservation", "0")
    says = host_says(notice, "tdmrep:tdm-reservation", "1 policy https://printroom.example/terms.json")
    yield _page(
        writer,
        PRINTS,
        "/notes/1.html",
        [
            _picture(writer, PRINTS, 0),
            replace(_picture(writer, PRINTS, 1, "img/open"), host_says=(free,)),
            pictures.forbidden(_picture(writer, PRINTS, 2, "img/reserved"), "optout_tdm", says),
        ],
    )


def _by_response(writer: Writer) -> Iterator[Draft]:
    """Headers and XMP: refusals on one page, permissions and words to others on the next."""
    shown = [_picture(writer, FINE_PRINT, 0)]
    for n, (header, reason) in enumerate(REFUSING, start=1):
        shown.append(pictures.answered(_picture(writer, FINE_PRINT, n), reason, header))
    shown.append(pictures.marked(_picture(writer, FINE_PRINT, 4), "optout_metadata", "DMI-PROHIBITED"))
    yield _page(writer, FINE_PRINT, "/notes/1.html", shown)
    shown = [pictures.answered(_picture(writer, FINE_PRINT, 5 + n), KEPT, header) for n, header in enumerate(HARMLESS)]
    shown.append(pictures.marked(_picture(writer, FINE_PRINT, 9), KEPT, "DMI-ALLOWED"))
    yield replace(_page(writer, FINE_PRINT, "/notes/2.html", shown), headers=HARMLESS[2:3])


def _copies(writer: Writer) -> Iterator[Draft]:
    """A copy of what goes for a reason of its own is no duplicate: it stays, unless the reason is its own too."""
    refused = pictures.opted_out(_picture(writer, FINE_PRINT, 10))
    copy = pictures.smaller_copy(_picture_of(refused), f"https://{FINE_PRINT}/img/copy10.jpg")
    copy = replace(copy, verdict=KEPT, sentence=refused.sentence)
    yield _page(writer, FINE_PRINT, "/notes/3.html", [replace(refused, sentence=""), copy])
    face = _picture(writer, ALBUM, 0, kind="face")
    yield _page(writer, ALBUM, "/notes/1.html", [face, pictures.smaller_copy(face, f"https://{ALBUM}/img/small.jpg")])
    yield _page(writer, ALBUM, "/notes/2.html", [_picture(writer, ALBUM, 1, kind="stripes")])


def _picture_of(one: Illustration) -> Illustration:
    """The picture without what its response says."""
    return replace(one, files=tuple(replace(file, headers=()) for file in one.files))


def _picture(writer: Writer, host: str, number: int, folder: str = "img", kind: str = "") -> Illustration:
    scene = random_scene(writer.rng, for_sample=True, kind=kind or KINDS[number % len(KINDS)])
    return pictures.sound(scene, writer.describe(scene), f"https://{host}/{folder}/p{number}.jpg", writer.rng)


def _page(writer: Writer, host: str, path: str, shown: Sequence[Illustration]) -> Draft:
    sentences = [writer.talk() for _ in range(10)] + [one.sentence for one in shown if one.sentence]
    writer.rng.shuffle(sentences)
    return Draft(host=host, path=path, elements=(*in_paragraphs(sentences, writer.rng), *shown))
