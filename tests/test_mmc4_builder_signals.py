"""Opt-out signals: the right names are picked, values stay as found and bounded."""

import pytest

from mmc4_builder.signals import (
    MAX_SIGNALS,
    MAX_VALUE_CHARS,
    Statement,
    header_signals,
    header_statements,
    may_signal,
    meta_signal,
)

SEEN = "2026-11-21T10:00:00Z"


def test_headers_are_picked_in_order_and_others_left() -> None:
    headers = [
        ("Content-Type", "text/html"),
        ("X-Robots-Tag", " noai, noimageai "),
        ("x-robots-tag", "googlebot: noindex"),
        ("TDM-Reservation", "1"),
        ("tdm-policy", "https://x.org/p.json"),
        ("Content-Usage ", "train-ai=n"),
    ]
    assert header_signals(headers) == (
        ("header:x-robots-tag", "noai, noimageai"),
        ("header:x-robots-tag", "googlebot: noindex"),
        ("header:tdm-reservation", "1"),
        ("header:tdm-policy", "https://x.org/p.json"),
        ("header:content-usage", "train-ai=n"),
    )


def test_what_is_kept_is_bounded() -> None:
    signals = header_signals([("X-Robots-Tag", "a" * 10_000)] * 1000)
    assert len(signals) == MAX_SIGNALS
    assert {len(value) for _, value in signals} == {MAX_VALUE_CHARS}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("robots", ("meta:robots", "NoAI")),
        (" ROBOTS ", ("meta:robots", "NoAI")),
        ("tdm-reservation", ("meta:tdm-reservation", "NoAI")),
        ("CCBot", ("meta:ccbot", "NoAI")),
        ("ClaudeBot", ("meta:claudebot", "NoAI")),
        ("description", None),
        ("", None),
    ],
)
def test_meta(name: str, expected: tuple[str, str] | None) -> None:
    assert meta_signal(name, " NoAI\n") == expected


def test_header_statements_carry_their_evidence() -> None:
    (statement,) = header_statements([("Content-Usage", "train-ai=n"), ("Age", "1")], "https://a.org/b.jpg", SEEN)
    assert statement == Statement(
        name="header:content-usage", value="train-ai=n", source="https://a.org/b.jpg", seen=SEEN
    )
    assert statement.signal == ("header:content-usage", "train-ai=n")


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ('<meta name="robots" content="noai">', True),
        ("<meta content=1 name = tdm-reservation>", True),
        ("<meta name='gptbot'>", True),
        ('<meta name="description" content="robots">', False),
        ('<meta property="og:image">', False),
        ("<meta name=" + " " * 100_000 + ">", False),
    ],
)
def test_a_quick_look_at_a_meta_tag(tag: str, expected: bool) -> None:
    assert may_signal(tag) == expected
