"""The sample web: two dozen sites, what they publish, and the truth about it. No pixel is drawn here."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from mmc4_builder.sample import illustrations as pictures
from mmc4_builder.sample.compose import Document, Draft, Paragraph, Writer, finish, in_paragraphs
from mmc4_builder.sample.illustrations import ENCODINGS, FAULTS, Illustration
from mmc4_builder.sample.markup import Shown, Style
from mmc4_builder.sample.pictures import Picture
from mmc4_builder.sample.refusals import Notice, notices, private, refusal_pages, robots_of
from mmc4_builder.sample.scenes import KINDS, Scene, random_scene
from mmc4_builder.sample.special import special_pages
from mmc4_builder.sample.truth import KEPT, Truth

SEED = 2019
PAGES_A_SITE = 8
PICTURES_A_PAGE = (1, 2, 2, 3, 3, 4, 4, 5, 6, 8)
STOCK_SITES = 12  # more than the ten pages that MMC4 allows a picture
NEAR_STOCK_SITES = 3  # that show it scaled down and compressed harder, too
CDN = "https://cdn.sharedstock.example"
SITES = (
    "harbournotes", "hilltopdiary", "quietroads", "morningpost", "oldvalley", "northgate", "paperlantern",
    "saltmarsh", "slowtravel", "villagepress", "westfield", "wanderings", "eastbank", "fernandstone",
    "gardenwall", "kitchentable", "longwinter", "marketday", "openwindow", "redbrick", "rivertown",
    "sundayread", "threebridges", "underthesky", "yearbook",
)  # fmt: skip
HOSTS = tuple(f"{site}.example" for site in SITES)
STYLES = (
    Style(),
    Style(links="relative"),
    Style(tag="lazy", links="host"),
    Style(tag="noscript"),
    Style(tag="srcset", gallery=True),
    Style(links="base"),
    Style(tag="picture", links="relative"),
    Style(tag="lazy_set"),
    Style(charset="cp1252"),
    Style(charset="cp1252", declared="meta", tag="lazy_noscript"),
    Style(declared="bom", links="protocol"),
    Style(tag="srcset_only", declared="meta"),
    Style(declared="nowhere", gallery=True),
)
# One page in two has a picture with a twist, the others have one with a fault.
TWISTS = (
    *ENCODINGS, "face", "stripes", "opted_out", "redirect", "hops", "astray", "same_file", "smaller", "private",
)  # fmt: skip
ONCE = ("bomb",)  # faults that are slow to make: on one page only
FAULTS_IN_TURN = tuple(name for name in FAULTS if name not in ONCE)
PNGS = ("palette", "transparent", "deep_png", "gif")
OPT_OUT_PAGES = {  # page number -> verdict, header, meta
    21: ("optout_header", (("X-Robots-Tag", "noai"),), ""),
    48: ("optout_meta", (), "noai, noimageai"),
    77: ("optout_tdm", (("TDM-Reservation", "1"),), ""),
    104: ("optout_meta", (), "noimageai"),
    133: ("optout_header", (("X-Robots-Tag", "noimageai"),), "noai"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """Everything that answers, and the truth."""

    documents: tuple[Document, ...]
    pictures: tuple[Picture, ...]  # each URL once
    notices: tuple[Notice, ...]
    truth: Truth


@cache
def build() -> Web:
    """The whole sample web; the same on every machine."""
    writer = Writer(SEED)
    stock = _stock(writer)
    documents = [_ordinary(number, writer, stock) for number in range(len(HOSTS) * PAGES_A_SITE)]
    ordinary = len(documents)
    documents += special_pages(HOSTS, writer, minute=ordinary)
    documents += refusal_pages(writer, minute=ordinary + 300)
    files = {file.url: file for document in documents for file in document.files}
    truth = Truth(pages=tuple(document.truth for document in documents), duplicate_of=_duplicates(files.values()))
    published = (*(robots_of(_root(site)) for site in range(len(HOSTS))), *notices())
    return Web(documents=tuple(documents), pictures=tuple(files.values()), notices=published, truth=truth)


def _root(site: int) -> str:
    return f"{'http' if site % 5 == 4 else 'https'}://{HOSTS[site]}"


def _duplicates(files: Iterable[Picture]) -> dict[str, str]:
    """Pictures with the same bytes: everything but the URL and the headers is equal."""
    first: dict[Picture, str] = {}
    found: dict[str, str] = {}
    for file in files:
        if file.scene is None or file.status != 200:
            continue
        original = first.setdefault(replace(file, url="", headers=()), file.url)
        if original != file.url:
            found[file.url] = original
    return found


def _ordinary(number: int, writer: Writer, stock: Sequence[Illustration]) -> Document:
    """Page `number`: a text with pictures, most of them described, and something that goes wrong."""
    site, serial = divmod(number, PAGES_A_SITE)
    host, style = HOSTS[site], STYLES[site % len(STYLES)]
    root = _root(site)
    twist = TWISTS[number // 2 % len(TWISTS)] if number % 2 else ""
    shown = _described(number, root, writer, twist)
    kinds = {kind for one in shown for kind in _kinds(one)}
    talk = [writer.talk([kind for kind in KINDS if kind not in kinds]) for _ in range(writer.rng.randrange(8, 23))]
    if style.charset != "utf-8" or style.declared != "header":
        talk.append(writer.accented())
    elements = _arrange(shown, talk, writer)
    if not twist:
        name = FAULTS_IN_TURN[number // 2 % len(FAULTS_IN_TURN)]
        elements.insert(writer.rng.randrange(len(elements) + 1), pictures.faulty(name, f"{root}/img/", number))
    if serial == 3 and site < len(ONCE):
        elements.append(pictures.faulty(ONCE[site], f"{root}/img/", number))
    if serial == 5 and site < 2 * STOCK_SITES:
        elements.append(stock[site])
    if serial == 6 and STOCK_SITES <= site < STOCK_SITES + NEAR_STOCK_SITES:
        elements.append(_near_stock(stock[site], site, root))
    verdict, headers, robots = OPT_OUT_PAGES.get(number, (KEPT, (), ""))
    return finish(
        Draft(
            host=host,
            path=f"/notes/{serial + 1}.html",
            scheme=root.partition(":")[0],
            title=f"{SITES[site].capitalize()}, page {serial + 1}",
            elements=tuple(elements),
            style=style,
            minute=number,
            verdict=verdict,
            repeated=(f"All pictures on this site were made by members of the {SITES[site]} club.",),
            robots=robots,
            headers=headers,
        )
    )


def _described(number: int, root: str, writer: Writer, twist: str) -> list[Illustration]:
    """The page's described pictures; the first one carries the twist, and its copies come last."""
    shown: list[Illustration] = []
    for place, scene in enumerate(_scenes(number, writer, twist)):
        extension = writer.rng.choice(("jpg", "jpg", "jpg", "jpeg", "png"))
        if place == 0 and twist:
            extension = "png" if twist in PNGS else "jpg"
        folder = f"{root}/img/" if writer.rng.random() < 0.8 else root.replace("://", "://media.") + "/u/"
        if place == 0 and twist == "private":
            folder = f"{root}/img/private/"
        url = f"{folder}dsc{number:03d}{place}.{extension}"
        shown.append(pictures.sound(scene, writer.describe(scene), url, writer.rng))
    if twist == "private":
        shown[0] = pictures.forbidden(shown[0], "optout_robots", private(root))
    shown[0:1] = _twisted(shown[0], twist, number, root)
    return shown


def _scenes(number: int, writer: Writer, twist: str) -> list[Scene]:
    """Scenes for one page, no two with a main thing of the same kind and colour; a stand-in now and then."""
    count = writer.rng.choice(PICTURES_A_PAGE)
    scenes = [random_scene(writer.rng, for_sample=True, kind=twist if twist in ("face", "stripes") else "")]
    while twist == "grey" and scenes[0].main.colour not in ("black", "white"):  # no sentence can be true else
        scenes = [random_scene(writer.rng, for_sample=True)]
    while len(scenes) < count:
        scene = random_scene(writer.rng, for_sample=True)
        alike = [other for other in scenes if other.main.kind == scene.main.kind]
        rarely = writer.rng.random() < 0.1  # one kind twice, in two colours: the harder case
        if not alike or (rarely and all(other.main.colour != scene.main.colour for other in alike)):
            scenes.append(scene)
    stand_in = {4: "face", 8: "stripes"}.get(number % 9, "")
    if stand_in and stand_in != twist:
        scenes.append(random_scene(writer.rng, for_sample=True, kind=stand_in))
    return scenes


def _twisted(one: Illustration, twist: str, number: int, root: str) -> list[Illustration]:
    full = f"{root}/full/{number}.jpg"
    if twist in ENCODINGS:
        return [pictures.encoded_as(one, twist)]
    if twist == "opted_out":
        return [pictures.huge(one)] if number < 40 else [pictures.opted_out(one)]
    if twist == "redirect":
        return [pictures.redirected(one, (full,), (301, 302, 307, 308)[number % 4])]
    if twist == "hops":
        return [pictures.redirected(one, (full, f"{CDN}/full/{number}.jpg"), 302)]
    if twist == "astray":
        return [one, pictures.astray(f"{root}/img/moved{number}.jpg", f"{CDN}/lost/{number}.jpg")]
    if twist == "same_file":
        return [one, pictures.same_file(one, f"{CDN}/copies/{number}.jpg")]
    if twist == "smaller":
        return [one, pictures.smaller_copy(one, f"{root}/img/small{number}.jpg")]
    return [one]


def _kinds(one: Illustration) -> Iterator[str]:
    scene = one.files[-1].scene if one.files else None
    if scene is not None:
        yield scene.main.kind
        if scene.other is not None:
            yield scene.other.kind


def _arrange(shown: Sequence[Illustration], talk: Sequence[str], writer: Writer) -> list[Paragraph | Illustration]:
    """Sentences in random order; half of the pictures beside their own, the others anywhere, copies last."""
    rng = writer.rng
    sentences = [*talk, *(one.sentence for one in shown if one.sentence)]
    rng.shuffle(sentences)
    elements: list[Paragraph | Illustration] = list(in_paragraphs(sentences, rng))
    for one in shown:
        if not one.sentence:
            elements.append(one)
            continue
        at = rng.randrange(len(elements))
        if rng.random() < 0.5:
            home = next(i for i, part in enumerate(elements) if isinstance(part, tuple) and one.sentence in part)
            at = home + rng.randrange(2)
        elements.insert(at, one)
    return elements


def _stock(writer: Writer) -> list[Illustration]:
    """For each of 2 x STOCK_SITES sites: one picture that all hotlink, and one that each keeps a copy of."""
    linked, copied = (
        pictures.sound(random_scene(writer.rng, for_sample=True), "", f"{CDN}/photos/{n}.jpg", writer.rng)
        for n in (1042, 1043)
    )
    stock = []
    for site in range(2 * STOCK_SITES):
        one = linked if site < STOCK_SITES else copied
        url = one.shown.url if site < STOCK_SITES else f"https://{HOSTS[site]}/img/handshake.jpg"
        files = (replace(one.files[0], url=url),)
        stock.append(replace(one, shown=Shown(url=url), files=files, label="stock", verdict="too_frequent"))
    return stock


def _near_stock(one: Illustration, site: int, root: str) -> Illustration:
    """A copy of a stock picture, so small that its hash differs by a few bits; no other site has it bit for bit."""
    width, height = one.files[0].size
    url = f"{root}/img/handshake-small.jpg"
    file = replace(one.files[0], url=url, size=(width * 4 // 9, height * 4 // 9), quality=60 + site)
    return replace(one, shown=Shown(url=url), files=(file,))
