"""Pictures on pages: a file, how the page shows it, and what a perfect pipeline makes of it."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mmc4_builder.sample.markup import Shown
from mmc4_builder.sample.pictures import Picture
from mmc4_builder.sample.scenes import Scene
from mmc4_builder.sample.truth import KEPT
from mmc4_builder.sample.words import noun_phrase
from mmc4_builder.signals import Statement

SIZES = (
    (320, 240),
    (480, 320),
    (480, 360),
    (600, 400),
    (640, 480),
    (400, 400),
    (360, 480),
    (640, 360),
    (900, 600),
)
ADS = "https://ads.trafficpartners.example/banner/{n}.jpg"
NO_MENTION = ""  # the verdict on what has no address on the web, and so is no picture of the page
OPT_OUT = ("X-Robots-Tag", "noai, noimageai")


@dataclass(frozen=True, slots=True, kw_only=True)
class Illustration:
    """One picture for one page. `files` are the responses that the crawl holds for it: none, one or more."""

    shown: Shown
    files: tuple[Picture, ...]
    verdict: str = KEPT
    label: str = ""
    sentence: str = ""
    same_bytes_as: str = ""  # URL of an earlier picture
    host_says: tuple[Statement, ...] = ()  # of its use, in robots.txt or tdmrep.json


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to go wrong, with an unrelated drawing. `file` is its name or its URL, {n} a serial number."""

    verdict: str
    file: str = "{n}.jpg"
    label: str = "unrelated"
    encoding: str = "jpeg"
    variant: str = "noise"
    size: tuple[int, int] = (400, 300)
    damage: str = ""
    status: int = 200
    archived: bool = True


FAULTS: Mapping[str, Fault] = {
    # by their URL
    "gif": Fault(verdict="url_extension", file="anim{n}.gif", encoding="gif"),
    "webp": Fault(verdict="url_extension", file="pic{n}.webp", encoding="webp"),
    "svg": Fault(verdict="url_extension", file="chart{n}.svg", encoding="svg"),
    "query": Fault(verdict="url_extension", file="pic{n}.jpg?w=800"),
    "capitals": Fault(verdict="url_extension", file="DSC{n}.JPG"),
    "logo": Fault(verdict="url_word", file="logo-{n}.png", encoding="png", label="decoration", variant="gradient"),
    "icon": Fault(verdict="url_word", file="icons/mail{n}.png", encoding="png", label="decoration", variant="checks"),
    "button": Fault(
        verdict="url_word", file="next-button{n}.png", encoding="png", label="decoration", variant="advert"
    ),
    "widget": Fault(verdict="url_word", file="Widget{n}.jpg", label="decoration", variant="screen"),
    "plugin": Fault(
        verdict="url_word", file="plugins/share{n}.png", encoding="png", label="decoration", variant="bars"
    ),
    "data_uri": Fault(verdict=NO_MENTION, archived=False),
    # by what the server answers
    "absent": Fault(verdict="missing", archived=False),
    "not_found": Fault(verdict="missing", status=404),
    "gone": Fault(verdict="missing", status=410),
    "empty": Fault(verdict="empty", damage="empty"),
    "html": Fault(verdict="not_an_image", damage="html"),
    "tiff": Fault(verdict="unsupported_format", encoding="tiff", size=(240, 180)),
    "cut_jpeg": Fault(verdict="truncated", damage="truncated"),
    "cut_png": Fault(verdict="truncated", file="{n}.png", encoding="png", variant="screen", damage="truncated"),
    "bad_jpeg": Fault(verdict="corrupt", damage="corrupt"),
    "bad_png": Fault(verdict="corrupt", file="{n}.png", encoding="png", variant="bars", damage="corrupt"),
    "bomb": Fault(verdict="too_many_pixels", file="{n}.png", encoding="bomb", size=(20_000, 20_000)),
    # by its shape
    "pixel": Fault(verdict="too_small", file="t{n}.png", encoding="png", label="decoration", size=(1, 1)),
    "thumbnail": Fault(verdict="too_small", file="thumb{n}.jpg", size=(120, 90)),
    "leaderboard": Fault(verdict="too_small", label="ad", variant="advert", size=(728, 90)),
    "billboard": Fault(verdict="bad_aspect", label="ad", variant="advert", size=(970, 250)),
    "skyscraper": Fault(verdict="bad_aspect", label="ad", variant="advert", size=(160, 600)),
    "panorama": Fault(verdict="bad_aspect", variant="gradient", size=(900, 300)),
    # by what it shows
    "rectangle": Fault(verdict="low_similarity", label="ad", variant="advert", size=(300, 250)),
    "noise": Fault(verdict="low_similarity", size=(480, 360)),
    "test_card": Fault(verdict="low_similarity", variant="bars", size=(480, 360)),
    "screenshot": Fault(verdict="low_similarity", variant="screen", size=(640, 480)),
    "backdrop": Fault(verdict="low_similarity", variant="gradient", size=(600, 400)),
    "tiles": Fault(verdict="low_similarity", variant="checks", size=(320, 320)),
    "ad_server": Fault(verdict="ad_banner", file=ADS, label="ad", variant="advert", size=(300, 250)),
    "flat": Fault(verdict="blank", file="{n}.png", encoding="png", variant="flat", size=(320, 240)),
    "speck": Fault(verdict="blank", variant="speck"),
    "large_ad": Fault(verdict="ad_banner", file=ADS, label="ad", variant="advert", size=(336, 280)),
}

ENCODINGS = ("cmyk", "progressive", "grey", "palette", "transparent", "deep_png", "rotated", "webp", "gif")
"""Unusual but sound: each is kept, whatever its URL's extension says."""

DATA_URI = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def faulty(name: str, folder: str, serial: int) -> Illustration:
    """The fault called `name`, below the URL `folder`."""
    fault = FAULTS[name]
    file = fault.file.format(n=serial)
    url = DATA_URI if name == "data_uri" else file if "://" in file else folder + file
    picture = Picture(
        url=url,
        variant=fault.variant,
        seed=serial,
        size=fault.size,
        encoding=fault.encoding,
        damage=fault.damage,
        status=fault.status,
    )
    files = (picture,) if fault.archived else ()
    return Illustration(shown=Shown(url=url), files=files, verdict=fault.verdict, label=fault.label)


def sound(scene: Scene, sentence: str, url: str, rng: random.Random) -> Illustration:
    """A picture that its page describes. Its alt text helps a quarter of the time, as on the web."""
    extension = url.rpartition(".")[2]
    picture = Picture(
        url=url,
        scene=scene,
        size=rng.choice(SIZES),
        encoding="png" if extension == "png" else "jpeg",
        quality=rng.randrange(70, 95),
    )
    alts = ("", "", url.rpartition("/")[2], "photo", noun_phrase(scene.main, rng))
    captions = ("", "", "", f"Plate {rng.randrange(1, 40)}", noun_phrase(scene.main, rng))
    shown = Shown(url=url, alt=rng.choice(alts), caption=rng.choice(captions))
    verdict = "nsfw" if scene.label == "nsfw_standin" else KEPT
    return Illustration(shown=shown, files=(picture,), verdict=verdict, label=scene.label, sentence=sentence)


def encoded_as(one: Illustration, encoding: str) -> Illustration:
    """The same picture in another encoding, at the same URL."""
    return replace(one, files=(replace(one.files[0], encoding=encoding),))


def huge(one: Illustration) -> Illustration:
    """6000 x 4000 px: much, but no bomb."""
    return replace(one, files=(replace(one.files[0], encoding="jpeg", size=(6000, 4000), quality=70),))


def opted_out(one: Illustration) -> Illustration:
    """Served with a header that asks not to be used."""
    return answered(one, "optout_header", OPT_OUT)


def answered(one: Illustration, verdict: str, header: tuple[str, str]) -> Illustration:
    """Served with this header."""
    return replace(one, files=(replace(one.files[0], headers=(header,)),), verdict=verdict)


def marked(one: Illustration, verdict: str, datamining: str) -> Illustration:
    """A JPEG whose own metadata say how it may be used."""
    return replace(one, files=(replace(one.files[0], datamining=datamining),), verdict=verdict)


def forbidden(one: Illustration, reason: str, host_says: Statement) -> Illustration:
    """The host asks that it not be used, or not be fetched."""
    return replace(one, verdict=reason, host_says=(host_says,))


def redirected(one: Illustration, targets: tuple[str, ...], status: int) -> Illustration:
    """The page's URL redirects through `targets`; the last of them serves the picture."""
    hops = (one.shown.url, *targets)
    steps = tuple(
        Picture(url=here, status=status, headers=(("Location", there),))
        for here, there in zip(hops, hops[1:], strict=False)
    )
    return replace(one, files=(*steps, replace(one.files[0], url=targets[-1])))


def astray(url: str, target: str) -> Illustration:
    """A redirect to a picture that the crawl does not hold."""
    step = Picture(url=url, status=302, headers=(("Location", target),))
    return Illustration(shown=Shown(url=url), files=(step,), verdict="missing")


def same_file(one: Illustration, url: str) -> Illustration:
    """The same bytes under a second URL, on the same page."""
    copy = replace(one.files[-1], url=url)
    return replace(
        one,
        shown=Shown(url=url),
        files=(copy,),
        verdict="near_duplicate",
        sentence="",
        same_bytes_as=one.files[-1].url,
    )


def smaller_copy(one: Illustration, url: str) -> Illustration:
    """The same picture, scaled down and compressed harder: the larger one stands for both."""
    original = one.files[-1]
    width, height = original.size
    copy = replace(original, url=url, size=(width * 2 // 3, height * 2 // 3), encoding="jpeg", quality=60)
    return replace(one, shown=Shown(url=url), files=(copy,), verdict="near_duplicate", sentence="")
