"""C4's normal form of a URL, hosts and extensions."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmc4_builder.urls import host_of, image_extension, normalize_url

FIXTURE = Path(__file__).parent / "data" / "c4_parity.json.gz"


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://www.example.com/a/", "example.com/a"),
        ("http://example.com", "example.com"),
        ("http://example.com/a?utm_source=x&b=1", "example.com/a"),
        ("http://example.com/a/?ref=x", "example.com/a"),
        ("http://example.com/a?feed=rss", "example.com/a"),
        ("http://example.com/a?b=1&utm_source=x", "example.com/a?b=1&utm_source=x"),
        ("https://web.example/http://www.other.example/", "web.example/other.example"),
        ("HTTP://example.com/", "HTTP://example.com"),
    ],
)
def test_normalize_url(url: str, normal: str) -> None:
    assert normalize_url(url) == normal


def test_normalizes_as_the_reference_does() -> None:
    for case in json.loads(gzip.decompress(FIXTURE.read_bytes()))["urls"]:
        assert normalize_url(case["url"]) == case["normal"]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://User:pw@WWW.Example.com:8080/a", "www.example.com"),
        ("http://example.com./", "example.com"),
        ("http://[2001:db8::1]:80/", "2001:db8::1"),
        (" http://example.com/ \n", "example.com"),
        ("http://[broken/", ""),
        ("mailto:me@example.com", ""),
        ("/a/b.jpg", ""),
        ("", ""),
    ],
)
def test_host_of(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("url", "extension"),
    [
        ("http://example.com/a.jpg", "jpg"),
        ("http://example.com/a.b.JPEG?x=1.png#c.gif", "jpeg"),
        ("http://example.com/a.d/b", ""),
        ("http://example.com", ""),
        ("http://example.com/a.", ""),
        ("http://example.com/a.toolongforone", ""),
        ("http://[broken/a.jpg", ""),
    ],
)
def test_image_extension(url: str, extension: str) -> None:
    assert image_extension(url) == extension


@given(st.text())
def test_any_text_gets_an_answer(url: str) -> None:
    assert normalize_url(url) == normalize_url(url).rstrip("/")
    assert host_of("http://" + url) == host_of("http://" + url).lower()
    assert "." not in image_extension(url)
