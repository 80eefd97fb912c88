"""Key lists: what one key covers and what it does not; lines that are none are told with their remedy."""

import pytest

from mmc4_builder.key_lists import KeyListError, parse

HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("key", "url", "matches"),
    [
        ("example.org", "https://example.org/a.jpg", True),
        ("example.org", "http://user@IMG.Example.ORG.:8080/a.jpg", True),
        ("*.example.org", "https://example.org/", True),
        (".example.org", "https://a.b.example.org", True),
        ("Example.org.", "https://example.org/", True),
        ("example.org", "https://badexample.org/", False),
        ("example.org", "https://example.org.evil.net/", False),
        ("example.org", "https://evil.net/example.org", False),
        ("img.example.org", "https://example.org/", False),
        ("b\u00fccher.example", "https://xn--bcher-kva.example/a.jpg", True),
        ("xn--bcher-kva.example", "https://B\u00dcCHER.example/a.jpg", True),
        ("192.0.2.7", "http://192.0.2.7:81/a.jpg", True),
        ("https://example.org/a.jpg", "HTTP://www.EXAMPLE.org:80/a.jpg#top", True),
        ("http://example.org/a.jpg#x", "https://example.org/a.jpg", True),
        ("https://example.org", "https://example.org/", True),
        ("https://example.org/p/", "https://example.org/p", True),
        ("https://example.org/%7eann/\u00e9.jpg", "https://example.org/~ann/%C3%A9.jpg", True),
        ("https://example.org/a.jpg", "https://example.org/A.jpg", False),
        ("https://example.org/a.jpg", "https://example.org/a.jpg?x=1", False),
        ("https://example.org/a.jpg", "https://img.example.org/a.jpg", False),
        ("https://example.org:8080/a.jpg", "https://example.org/a.jpg", False),
        ("https://example.org/", "https://example.org/a.jpg", False),
        ("https://[2001:db8::1]/a.jpg", "http://[2001:DB8::1]/a.jpg", True),
        (HASH, "https://example.org/" + HASH, False),
        ("example.org", "not a url", False),
        ("example.org", "http://[", False),
    ],
)
def test_urls(key: str, url: str, matches: bool) -> None:
    assert (parse(key, "keys.txt").matches_url(url) is not None) == matches


def test_the_key_that_matches_is_told() -> None:
    keys = parse(f"example.org\na.example.org\nhttp://a.example.org/x#y\n{HASH.upper()}\n", "keys.txt")
    assert keys.matches_url("https://a.example.org/x") == "http://a.example.org/x#y"
    assert keys.matches_url("https://b.a.example.org/y") == "a.example.org"
    assert keys.matches_url("https://b.example.org/y") == "example.org"
    assert keys.matches_hash("f" * 64, HASH) == HASH
    assert keys.matches_hash("f" * 64) is None
    assert len(keys) == 4


def test_comments_and_blank_lines() -> None:
    keys = parse("\ufeff# all\r\n\r\n  example.org   # by mail, 3 May\nhttps://a.org/#part\n", "keys.txt")
    assert list(keys) == ["example.org", "https://a.org/#part"]


@pytest.mark.parametrize(
    "line",
    ["org", "example.org/a.jpg", "ftp://example.org/", "0" * 63, "a b.org", "https://a.org/b c", "1.2", "https://"]
    + ["*", "-a.org", "example.org:80"],
)
def test_what_is_no_key(line: str) -> None:
    with pytest.raises(KeyListError) as caught:
        parse(f"example.org\n{line}\n", "keys.txt")
    message = str(caught.value)
    assert "keys.txt, line 2" in message and repr(line) in message and "sha256" in message


def test_text_is_the_same_whatever_the_order() -> None:
    lines = ["b.org", "a.org", "https://a.org/x", "http://www.a.org/x/", HASH, HASH.upper()]
    one, other = parse("\n".join(lines), "a"), parse("\n".join(reversed(lines)), "b")
    assert one.to_text() == other.to_text() == f"a.org\nb.org\nhttp://www.a.org/x/\n{HASH}\n"
    assert parse(one.to_text(), "a") == one


def test_merge() -> None:
    one, other = parse("a.org\nhttps://x.org/1", "a"), parse(f"b.org\nhttp://x.org/1\n{HASH}", "b")
    assert one.merge(other).to_text() == other.merge(one).to_text() == f"a.org\nb.org\nhttp://x.org/1\n{HASH}\n"
