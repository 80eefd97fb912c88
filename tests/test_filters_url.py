"""MMC4's rules on picture URLs: what is kept, and every reason to drop."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.url import UrlRules, reject, wide

RELEASED = Path(__file__).parents[2] / "shared" / "data" / "mmc4_docs.jsonl"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.jpg",
        "https://example.com/a.jpeg",
        "HTTPS://example.com/a.png",
        "http://example.com/view?file=a.png",  # the whole URL ends in the extension
        "http://example.com/a b%20c.jpg",
    ],
)
def test_keeps(url: str) -> None:
    assert reject(url) is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "not_http"),
        ("/a.jpg", "not_http"),
        ("//example.com/a.jpg", "not_http"),
        ("ftp://example.com/a.jpg", "not_http"),
        ("data:image/png;base64,xxxx.png", "not_http"),
        ("http://example.com/" + "a" * 2048 + ".jpg", "url_too_long"),
        ("http://example.com/a.JPG", "url_extension"),
        ("http://example.com/a.webp", "url_extension"),
        ("http://example.com/a.gif", "url_extension"),
        ("http://example.com/a.jpg?w=100", "url_extension"),
        ("http://example.com/ajpg", "url_extension"),
        ("http://example.com/site-Logo.png", "url_word"),
        ("http://logos.example.com/a.png", "url_word"),
        ("http://example.com/buttons/a.png", "url_word"),
        ("http://example.com/favicon.png", "url_word"),
        ("http://example.com/wp-content/plugins/a.png", "url_word"),
        ("http://example.com/Widgets/a.png", "url_word"),
    ],
)
def test_rejects(url: str, reason: str) -> None:
    assert reject(url) == reason


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.com/a.webp", None),
        ("http://example.com/a.JPG?w=100#top", None),
        ("http://example.com/view?file=a.png", "url_extension"),
        ("http://example.com/a.jpg?logo=1", "url_word"),
        ("http://[example.com/a.jpg", "url_extension"),
    ],
)
def test_wide_rules(url: str, reason: str | None) -> None:
    assert reject(url, rules=wide()) == reason


@pytest.mark.parametrize(
    "wrong", [{"max_chars": 0}, {"extensions": (".JPG",)}, {"banned": ("",)}, {"banned": ("Logo",)}]
)
def test_bad_rules_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        UrlRules(**wrong)  # type: ignore[arg-type]


@given(st.text())
def test_any_text_gets_an_answer(url: str) -> None:
    assert reject(url) != ""
    assert reject("http://" + url, rules=wide()) != "not_http"


@pytest.mark.skipif(not RELEASED.exists(), reason="released MMC4 documents are not here")
def test_keeps_every_released_url() -> None:
    documents = [json.loads(line)["doc"] for line in RELEASED.read_text().splitlines()]
    urls = [image["raw_url"] for document in documents for image in document["image_info"]]
    assert urls and [url for url in urls if reject(url)] == []
