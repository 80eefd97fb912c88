"""Banners by size and word, and rules of ad blockers: what stays, every reason to go, and lists that are broken."""

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.ads import MMC4 as NO_BANNERS
from filters.ads import AdEngine, AdList, AdListError, AdRules, has_ad_size, has_ad_word, load, reject

PAGE = "https://news.example.org/story.html"
LIST = """[Adblock Plus 2.0]
! a comment
||adhost.example^
/promo/*$image
@@||good.example/promo/
||third.example^$third-party
||scripts.example^$script
news.example.org##.ad
"""


@pytest.mark.parametrize(
    ("width", "height", "is_ad"),
    [
        (300, 250, True),
        (600, 500, True),  # for dense screens
        (728, 90, True),
        (250, 300, False),  # not turned
        (301, 250, False),
        (601, 501, False),
        (900, 750, False),  # three times
        (1080, 1920, False),  # a telephone's photographs
        (750, 1334, False),
        (640, 1136, False),
        (0, 0, False),
    ],
)
def test_sizes(width: int, height: int, is_ad: bool) -> None:
    assert has_ad_size(width, height) is is_ad


@pytest.mark.parametrize(
    ("url", "is_ad"),
    [
        ("https://ads.example.com/x.jpg", True),
        ("https://adserver3.example.com/x.jpg", True),
        ("https://ad.doubleclick.net/x.jpg", True),
        ("https://example.com/ad/x.jpg", True),
        ("https://example.com/img/top-banner2.png", True),
        ("https://example.com/img/BannerTop.png", True),
        ("https://example.com/SPONSORS/x.png", True),
        ("https://example.com/our_sponsor.png", True),
        ("https://example.com/adverts/x.png", True),
        ("https://example.com/shadow.jpg", False),
        ("https://example.com/download/x.jpg", False),
        ("https://headstart.example.com/x.jpg", False),
        ("https://example.com/uploads/x.jpg", False),
        ("https://example.com/adventure/bradley.jpg", False),
        ("https://example.com/AAAAAAAAdZg/RxVE1gAw-9M/x.png", False),  # random letters
        ("https://example.com/x.jpg?from=ads", False),
        ("http://[ads.example.com/x.jpg", False),
        ("", False),
    ],
)
def test_words(url: str, is_ad: bool) -> None:
    assert has_ad_word(url) is is_ad


@pytest.mark.parametrize(
    ("url", "size", "reason"),
    [
        ("https://example.com/banner/x.jpg", (300, 250), "ad_banner"),
        ("https://example.com/banner/x.jpg", (640, 480), None),  # the word alone
        ("https://example.com/photo-300x250.jpg", (300, 250), None),  # the size alone
        ("https://example.com/photo.jpg", (640, 480), None),
    ],
)
def test_banners(url: str, size: tuple[int, int], reason: str | None) -> None:
    assert reject(url, PAGE, *size) == reason
    assert reject(url, PAGE, *size, rules=NO_BANNERS) is None


@pytest.fixture(scope="module")
def engine() -> AdEngine:
    pytest.importorskip("adblock")
    return load([LIST, "||second.example^\n"])


@pytest.mark.parametrize(
    ("url", "page", "reason"),
    [
        ("https://cdn.adhost.example/x.jpg", PAGE, "ad_network"),
        ("https://second.example/x.jpg", PAGE, "ad_network"),
        ("https://example.com/promo/x.jpg", PAGE, "ad_network"),
        ("https://good.example/promo/x.jpg", PAGE, None),  # an exception
        ("https://third.example/x.jpg", PAGE, "ad_network"),
        ("https://img.third.example/x.jpg", "https://www.third.example/", None),  # its own page
        ("https://scripts.example/x.jpg", PAGE, None),  # a rule for scripts
        ("https://example.com/x.jpg", PAGE, None),
        ("https://cdn.adhost.example/x.jpg", "", "ad_network"),
        ("https://cdn.adhost.example/x.jpg", "no URL", "ad_network"),
        ("https://cdn.adhost.example/\ud800.jpg", "https://\udfff/", "ad_network"),
        ("http://[::1/x.jpg", PAGE, None),
        ("", "", None),
    ],
)
def test_lists(engine: AdEngine, url: str, page: str, reason: str | None) -> None:
    assert reject(url, page, 0, 0, engine=engine) == reason


def test_a_banner_needs_no_list(engine: AdEngine) -> None:
    assert reject("https://cdn.adhost.example/ads/x.jpg", PAGE, 300, 250, engine=engine) == "ad_banner"


PIECES = ["||", "|", "/", "^", "*", "@@", "$", "$image", "$domain=", "a.example", "ads", "~", ",", "(", "[", "\\", "##"]
PIECES += ["$important", "$redirect=", "badfilter", "\xa0", "\t", "\r", "\0", "\ud800", "\u00e9", "!#include x"]


@pytest.mark.parametrize(
    "line", ["/|", "|/", "/$image", "@@/$image", " |/|\t", "||/^", "/$$", "/(/$image", "a" * 100_000, "/(a+)+$/", "\0"]
)
def test_broken_rules_are_passed_over(line: str) -> None:
    pytest.importorskip("adblock")
    engine = load([f"{line}\n||adhost.example^"])
    assert engine.judge("https://adhost.example/aaaaaaaaaaaaaaa/x.jpg", PAGE) in ("ad_network", None)
    assert engine.judge("https://other.example/x", PAGE) is None
    if not line.startswith("@@"):
        assert engine.judge("https://adhost.example/x.jpg", PAGE) == "ad_network"


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), max_size=20), st.text(max_size=20))
def test_any_list_and_url_get_an_answer(lines: list[str], path: str) -> None:
    pytest.importorskip("adblock")
    verdict = load(["!\n" + "\n".join(lines)]).judge("https://a.example/ads/" + path, PAGE)
    assert verdict in ("ad_network", None)


def test_a_fault_in_the_engine_costs_one_picture() -> None:
    adblock = pytest.importorskip("adblock")
    rules = adblock.FilterSet()
    rules.add_filter_list("/$image")  # `load` would have left it out
    assert AdEngine(adblock.Engine(rules)).judge("https://a.example/x.jpg", PAGE) == "ad_list_failed"


def test_a_web_page_is_no_list() -> None:
    pytest.importorskip("adblock")
    with pytest.raises(AdListError, match="a web page"):
        load(["\ufeff\n<!DOCTYPE html><title>404</title>"])


def test_a_list_is_known_by_its_hash() -> None:
    data = LIST.encode()
    listed = AdList(path="gs://lists/easylist.txt", sha256=hashlib.sha256(data).hexdigest())
    assert listed.text(data) == LIST
    with pytest.raises(AdListError, match="gs://lists/easylist.txt has sha256"):
        listed.text(data + b"\n")


def test_without_the_package_the_remedy_is_named() -> None:
    script = "import sys; sys.modules['adblock'] = None\nfrom filters.ads import load\nload([''])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "AdListError" in done.stderr and "pip install 'mmc4-build[ads]'" in done.stderr


@pytest.mark.parametrize("wrong", [{"sizes": ((0, 90),)}, {"words": ("Ad",)}, {"words": ("ad2",)}, {"words": ("",)}])
def test_bad_rules_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="give"):
        AdRules(**wrong)  # type: ignore[arg-type]
