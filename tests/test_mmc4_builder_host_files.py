"""What a host's files say, and what it means that they could not be had (RFC 9309 §2.3.1)."""

import json

import pytest

from mmc4_builder.host_files import HostFile, HostRules
from mmc4_builder.signals import Statement

SEEN = "2026-11-21T10:00:00Z"
ROBOTS, TDMREP = "https://h.example/robots.txt", "https://h.example/.well-known/tdmrep.json"
URL = "https://h.example/img/private/a.jpg?w=1#x"


def answer(url: str, text: str = "", *, status: int = 200, reason: str | None = None) -> HostFile:
    return HostFile(url=url, status=status, reason=reason, body=text.encode(), seen=SEEN)


def said(rules: HostRules, agents: tuple[str, ...] = (), url: str = URL) -> list[tuple[str, str]]:
    return [statement.signal for statement in rules.statements(url, agents)]


@pytest.mark.parametrize(
    ("status", "reason", "expected", "signal"),
    [
        (200, None, False, ("robots:mmc-build", "Disallow: /")),
        (203, None, False, ("robots:mmc-build", "Disallow: /")),
        (204, None, False, ("robots:mmc-build", "Disallow: /")),
        (301, None, True, None),
        (400, None, True, None),
        (401, None, True, None),
        (403, None, True, None),
        (404, None, True, None),
        (410, None, True, None),
        (429, None, False, ("robots:unreachable", "http_429")),
        (500, None, False, ("robots:unreachable", "http_500")),
        (503, None, False, ("robots:unreachable", "http_503")),
        (100, None, False, ("robots:unreachable", "http_100")),
        (0, "timeout", False, ("robots:unreachable", "timeout")),
        (0, "dns_failure", False, ("robots:unreachable", "dns_failure")),
        (200, "truncated_body", False, ("robots:unreachable", "truncated_body")),
        (302, "too_many_redirects", True, None),
    ],
)
def test_what_an_answer_means(status: int, reason: str | None, expected: bool, signal: tuple[str, str] | None) -> None:
    file = answer(ROBOTS, "User-agent: *\nDisallow: /", status=status, reason=reason)
    rules = HostRules.of(file)
    assert rules.allowed(URL) == expected
    assert said(rules) == ([signal] if signal else [])


def test_files_that_were_never_asked_for_say_nothing() -> None:
    rules = HostRules.of(None, None)
    assert rules.allowed(URL) and rules.statements(URL, ("GPTBot",)) == () and rules.crawl_delay is None


def test_everything_that_is_said_with_its_evidence() -> None:
    robots = answer(
        ROBOTS,
        "User-agent: *\nDisallow: /img/private/\nContent-Usage: train-ai=n\nContent-Signal: ai-train=no\n"
        "Crawl-delay: 4\n\nUser-agent: GPTBot\nUser-agent: CCBot\nDisallow: /img/\n\nUser-agent: Amazonbot\nAllow: /\n",
    )
    tdmrep = answer(
        TDMREP, json.dumps([{"location": "/img/", "tdm-reservation": 1, "tdm-policy": "https://h.example/p"}])
    )
    rules = HostRules.of(robots, tdmrep)
    found = rules.statements(URL, ("CCBot", "ClaudeBot", "Amazonbot", "GPTBot"))
    assert [statement.signal for statement in found] == [
        ("robots:mmc-build", "Disallow: /img/private/"),
        ("robots:CCBot", "Disallow: /img/"),
        ("robots:GPTBot", "Disallow: /img/"),
        ("robots:content-usage", "train-ai=n"),
        ("robots:content-signal", "ai-train=no"),
        ("tdmrep:tdm-reservation", "1 policy https://h.example/p"),
    ]
    assert found[0] == Statement(name="robots:mmc-build", value="Disallow: /img/private/", source=ROBOTS, seen=SEEN)
    assert found[-1].source == TDMREP
    assert rules.crawl_delay == 4
    assert said(rules, ("GPTBot",), "https://h.example/other.jpg") == [
        ("robots:content-usage", "train-ai=n"),
        ("robots:content-signal", "ai-train=no"),
    ]


@pytest.mark.parametrize(("status", "reason"), [(404, None), (500, None), (0, "timeout")])
def test_a_reservation_file_that_is_not_there_reserves_nothing(status: int, reason: str | None) -> None:
    file = answer(TDMREP, '[{"location": "/", "tdm-reservation": 1}]', status=status, reason=reason)
    rules = HostRules.of(None, file)
    assert rules.allowed(URL) and said(rules) == []


def test_a_reservation_does_not_forbid_the_request_by_itself() -> None:
    rules = HostRules.of(None, answer(TDMREP, '[{"location": "/", "tdm-reservation": 1}]'))
    assert rules.allowed(URL) and said(rules) == [("tdmrep:tdm-reservation", "1")]


@pytest.mark.parametrize("url", ["", "http://[", "https://h.example", "https://h.example//x/\ud800", "a b"])
def test_any_url_has_an_answer(url: str) -> None:
    rules = HostRules.of(answer(ROBOTS, "User-agent: *\nDisallow: /\nUser-agent: GPTBot\nDisallow: /"))
    assert not rules.allowed(url)
    assert len(rules.statements(url, ("GPTBot",))) == 2
