"""Path patterns: RFC 9309's table of spellings, wildcards, and the longest one of many."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmc4_builder.path_patterns import Longest, PathPattern, target_of


@pytest.mark.parametrize(
    ("pattern", "url", "expected"),
    [
        ("/foo/bar?baz=quz", "https://h/foo/bar?baz=quz", True),  # RFC 9309 §2.2.2, table
        ("/foo/bar?baz=https://foo.bar", "https://h/foo/bar?baz=https%3A%2F%2Ffoo.bar", False),  # %2F is no slash
        ("/foo/bar?baz=a:b", "https://h/foo/bar?baz=a%3Ab", True),
        ("/foo/bar/\u30c4", "https://h/foo/bar/%E3%83%84", True),
        ("/foo/bar/%e3%83%84", "https://h/foo/bar/\u30c4", True),
        ("/foo/bar/%62%61%7A", "https://h/foo/bar/baz", True),
        ("/path/file-with-a-%2A.html", "https://h/path/file-with-a-*.html", True),  # §2.2.3
        ("/path/foo-%24", "https://h/path/foo-$", True),
        ("/this/*/exactly", "https://h/this/path/exactly", True),
        ("/allow-this-exactly$", "https://h/allow-this-exactly-not", False),
        ("/*.jpg$", "https://h/a/b.jpg", True),
        ("/*.jpg$", "https://h/a/b.jpg?x", False),
        ("/*.jpg", "https://h/a/b.jpg?x", True),
        ("/*a*a$", "https://h/a", False),  # one octet is not both
        ("/**a", "https://h/xa", True),
        ("*.png", "https://h/a.png", True),
        ("/A", "https://h/a", False),
        ("/", "https://h", True),
        ("/", "https://h?q", True),
        ("/a", "https://h/b#/a", False),
        ("a", "https://h/a", False),  # a pattern starts with a slash or a star
        ("/%zz", "https://h/%zz", True),
        ("/\ud800", "https://h/\ud800", True),
    ],
)
def test_matching(pattern: str, url: str, expected: bool) -> None:
    assert PathPattern.of(pattern).matches(target_of(url)) == expected


@given(st.text("ab*", max_size=8), st.booleans(), st.text("ab", max_size=10))
def test_stars_mean_what_a_regular_expression_would(pattern: str, to_end: bool, target: str) -> None:
    expected = re.match(pattern.replace("*", ".*") + ("$" if to_end else ""), target) is not None
    assert PathPattern.of(pattern + "$" * to_end).matches(target) == expected


def test_many_stars_cost_no_more_than_their_number() -> None:
    assert not PathPattern.of("/" + "*a" * 100_000 + "b$").matches("/" + "a" * 4000)


@given(st.lists(st.text("/ab*", min_size=1, max_size=5), max_size=12), st.text("ab/", max_size=8))
def test_longest_is_the_longest(patterns: list[str], path: str) -> None:
    parsed = [PathPattern.of(pattern) for pattern in patterns]
    length, found = Longest((one, one.text) for one in parsed).find("/" + path)
    covering = [one.text for one in parsed if one.matches("/" + path)]
    best = max(map(len, covering), default=-1)
    assert (length, sorted(found)) == (best, sorted(text for text in covering if len(text) == best))
