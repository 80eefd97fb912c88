"""Opt-out signals: the right names are picked, values stay as found and bounded."""

import pytest

from mmc4_builder.signals import MAX_SIGNALS, MAX_VALUE_CHARS, header_signals, meta_signal


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
        ("description", None),
        ("", None),
    ],
)
def test_meta(name: str, expected: tuple[str, str] | None) -> None:
    assert meta_signal(name, " NoAI\n") == expected
