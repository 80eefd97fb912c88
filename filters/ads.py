"""Advertisements: banners by their size and words, and whatever a list of an ad blocker names.

MMC4 has no rule for ads beyond words in URLs, size and shape (MMC4 §3), and 2 to 3 % of its pictures are ads.
A banner has to have an advertising size, to the pixel, and an advertising word: either alone hits photographs.
Lists are the user's own, in EasyList's format, because theirs are not our licences and they change every day.
The `adblock` package (Brave's engine) reads them; it is an optional dependency, as it is rarely released.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import adblock

# IAB New Ad Portfolio (2017) and the sizes before it, width x height. Left out: 640x1136, 750x1334, 1080x1920,
# which are full-screen ads on telephones, and just as often their photographs and screenshots.
# fmt: off
IAB_SIZES = (
    (970, 250), (970, 90), (728, 90), (300, 50), (320, 50), (300, 1050), (160, 600), (300, 250), (120, 60), (120, 20),
    (168, 28), (216, 36), (180, 150), (120, 600), (468, 60), (300, 600), (336, 280), (320, 100), (234, 60), (88, 31),
    (120, 240), (125, 125), (120, 90), (240, 400), (250, 250), (200, 200), (300, 100), (720, 300),
)
# Whole words of a host or path, so that neither "shadow" nor "download" is one.
AD_WORDS = (
    "ad", "ads", "adimg", "adimage", "adimages", "adserv", "adserver", "adservers", "adservice", "adsense",
    "adsystem", "adtech", "adv", "advert", "adverts", "advertise", "advertisement", "advertisements", "advertiser",
    "advertisers", "advertising", "affiliate", "affiliates", "banner", "bannerad", "bannerads", "banners",
    "doubleclick", "googleads", "googleadservices", "googlesyndication", "pagead", "sponsor", "sponsored", "sponsors",
    "sponsorship",
)
# fmt: on
_WORD = re.compile(r"[A-Za-z]+")
# Capitals part words, too, as in TopBanner; only long ones, since names made of random letters are full of short ones.
_PART = re.compile(r"[A-Z]?[a-z]{3,}|[A-Z]{4,}(?![a-z])")


class AdListError(ValueError):
    """A list that cannot be used, or nothing to read it with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdList:
    """A list of rules at rest. The hash stands for its text in a build's fingerprint."""

    path: str
    sha256: str  # hex, of the file

    def text(self, data: bytes) -> str:
        """The text of the file that was read from `path`; raises AdListError where it is another one."""
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256.lower():
            raise AdListError(
                f"{self.path} has sha256 {found}, not {self.sha256}; "
                "give the hash of the list that is meant, and expect other verdicts with another list"
            )
        return data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdRules:
    """Sizes and words of banners, and lists of rules; with `sizes=()` no size makes a banner."""

    sizes: tuple[tuple[int, int], ...] = IAB_SIZES  # px, width and height; twice as much of both counts, too
    words: tuple[str, ...] = AD_WORDS  # lower-case, letters only
    lists: tuple[AdList, ...] = ()

    def __post_init__(self) -> None:
        for width, height in self.sizes:
            if width < 1 or height < 1:
                raise ValueError(f"a size is {width}x{height}; give positive pixels")
        for word in self.words:
            if not re.fullmatch("[a-z]+", word):
                raise ValueError(f"an ad word is {word!r}; give lower-case letters a to z only, as URLs are cut there")


MMC4 = AdRules(sizes=())  # MMC4 has no such rule
WEB = AdRules()


class AdEngine:
    """Rules of lists, ready to match. Holds foreign memory: make one a process, it cannot be pickled."""

    def __init__(self, engine: "adblock.Engine") -> None:
        self._engine = engine

    def judge(self, image_url: str, page_url: str) -> str | None:
        """`ad_network` where the rules block this picture on this page, or None; an exception rule wins.

        7 to 15 us with the 56 thousand network rules of EasyList. `ad_list_failed` where the engine gives up
        on the URL, so that one picture is lost, and seen to be, instead of a build.
        """
        try:
            found = self._engine.check_network_urls(_sendable(image_url), _sendable(page_url), "image")
        except BaseException as error:
            # A fault inside the engine is a PanicException. It is no Exception, and its class has no importable name.
            if type(error).__name__ != "PanicException":
                raise
            return "ad_list_failed"
        return "ad_network" if found.matched else None


def load(lists: Iterable[str]) -> AdEngine:
    """An engine for the texts of some lists; unknown rules in them are passed over, as ad blockers do.

    0.25 s and 50 MB for EasyList. Raises AdListError where the `adblock` package is missing, or a text is no list.
    """
    try:
        import adblock
    except ImportError as error:
        raise AdListError(
            "ad-network lists need the adblock package: pip install 'mmc4-build[ads]', or give no lists"
        ) from error
    rules = adblock.FilterSet()
    for text in lists:
        if text.lstrip("\ufeff \t\r\n").startswith("<"):
            raise AdListError(f"a list begins {text.strip()[:40]!r}: a web page, not rules; download the list again")
        lines = [_sendable(line) for line in text.splitlines() if not _breaks_engine(line)]
        rules.add_filter_list("\n".join(lines), rule_types="networkonly")
    return AdEngine(adblock.Engine(rules))


def reject(
    image_url: str, page_url: str, width: int, height: int, *, rules: AdRules = WEB, engine: AdEngine | None = None
) -> str | None:
    """`ad_banner`, `ad_network`, `ad_list_failed`, or None to keep. Pixels as published; 0 where not yet known."""
    if has_ad_size(width, height, rules) and has_ad_word(image_url, rules):
        return "ad_banner"
    return engine.judge(image_url, page_url) if engine else None


def has_ad_size(width: int, height: int, rules: AdRules = WEB) -> bool:
    """Whether a picture has exactly an advertising size, or twice one, for dense screens."""
    if (width, height) in rules.sizes:
        return True
    return width % 2 == 0 and height % 2 == 0 and (width // 2, height // 2) in rules.sizes


def has_ad_word(url: str, rules: AdRules = WEB) -> bool:
    """Whether host or path of a URL has an advertising word; what is in its query is not the picture's name."""
    try:
        parts = urlsplit(url)
    except ValueError:  # such as an unclosed [ in the host
        return False
    name = f"{parts.netloc} {parts.path}"
    return any(word.lower() in rules.words for word in (*_WORD.findall(name), *_PART.findall(name)))


def _breaks_engine(rule: str) -> bool:
    """Whether a rule is only a slash, which adblock 0.6.0 takes for a regular expression without an end.

    1.4 million random rules found no other line that breaks it.
    """
    pattern = rule.strip().removeprefix("@@").partition("$")[0]
    return pattern.strip("| \t\xa0") == "/"


def _sendable(text: str) -> str:
    """Text that can be UTF-8; pages name URLs with lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")
