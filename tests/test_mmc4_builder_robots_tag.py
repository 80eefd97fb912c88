"""X-Robots-Tag: scopes, words with values, and where img2dataset reads the same fields wrongly."""

import pytest

from mmc4_builder.robots_tag import directives


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("noai, NoImageAI", [(None, "noai"), (None, "noimageai")]),
        ("GPTBot: noai", [("gptbot", "noai")]),
        ("*: noai", [(None, "noai")]),
        # img2dataset: the agent is "unavailable_after", the date its directives, and noai is lost.
        (
            "unavailable_after: 25 Jun 2026 15:00:00 PST, noai",
            [(None, "unavailable_after"), (None, "noai")],
        ),
        (
            "unavailable_after: Saturday, 25-Jun-2026 15:00:00 PST, noai",
            [(None, "unavailable_after"), (None, "25-jun-2026"), (None, "15"), (None, "noai")],
        ),
        # img2dataset: "b: noai" is one unknown directive of a's.
        ("a: noindex, b: noai", [("a", "noindex"), ("b", "noai")]),
        ("a: noindex, nofollow, b: noai", [("a", "noindex"), ("a", "nofollow"), ("b", "noai")]),
        # img2dataset: the agent keeps its space and equals none.
        (" mmc-build : noai", [("mmc-build", "noai")]),
        ("max-image-preview:large, noml", [(None, "max-image-preview"), (None, "noml")]),
        ("googlebot: max-snippet:-1, noai", [("googlebot", "max-snippet"), ("googlebot", "noai")]),
        ("googlebot: unavailable_after: 1 Jan 2027 00:00:00 GMT", [("googlebot", "unavailable_after")]),
        ("noai noimageai;noml", [(None, "noai"), (None, "noimageai"), (None, "noml")]),
        ("", []),
        (", ,;", []),
    ],
)
def test_directives(value: str, expected: list[tuple[str | None, str]]) -> None:
    assert list(directives(value)) == expected
