"""robots.txt: RFC 9309's rules, agents by name, usage preferences, and files made to hurt."""

import urllib.robotparser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protego import Protego

from mmc4_builder.path_patterns import target_of
from mmc4_builder.robots import MAX_BYTES, MAX_GROUPS, MAX_STARS, Robots, robots_text

HOST = "https://h.example"


def refusal(text: str, path: str = "/a") -> str | None:
    robots, target = Robots(text.encode()), target_of(HOST + path)
    line = robots.refusal(target)
    assert robots.allowed(target) == (line is None)
    return line


def agent_refusal(text: str, path: str = "/a", agent: str = "GPTBot") -> str | None:
    return Robots(text.encode()).agent_refusal(target_of(HOST + path), agent)


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("", "/a", None),
        ("User-agent: *\nDisallow:", "/a", None),
        ("User-agent: *\nDisallow: /", "/a", "Disallow: /"),
        ("User-agent: *\nDisallow: /", "/robots.txt", None),
        ("User-agent: mmc-build\nDisallow: /a\n\nUser-agent: *\nDisallow: /b", "/a", "Disallow: /a"),
        ("User-agent: mmc-build\nDisallow: /a\n\nUser-agent: *\nDisallow: /b", "/b", None),
        ("User-agent: MMC-Build/1.0\nDisallow: /", "/a", "Disallow: /"),
        ("User-agent: mmc4-build\nDisallow: /", "/a", "Disallow: /"),  # what our User-Agent begins with
        # Names are equal or they are others': Protego alone would apply these.
        ("User-agent: mmc\nDisallow: /", "/a", None),
        ("User-agent: mmc-bui\nDisallow: /", "/a", None),
        ("User-agent: build\nDisallow: /", "/a", None),
        ("User-agent: otherbot\nDisallow: /", "/a", None),
        # Groups of one name are merged, and one group may have several names (§2.2.1).
        ("User-agent: mmc-build\nDisallow: /b\nUser-agent: x\nUser-agent: mmc-build\nDisallow: /", "/a", "Disallow: /"),
        # The longest rule wins, and of equals Allow (§2.2.2).
        ("User-agent: *\nDisallow: /\nAllow: /a", "/a", None),
        ("User-agent: *\nAllow: /a\nDisallow: /a/b", "/a/b", "Disallow: /a/b"),
        ("User-agent: *\nDisallow: /a\nAllow: /a", "/a", None),
        ("User-agent: *\nDisallow: /*.jpg$", "/x.jpg", "Disallow: /*.jpg$"),
        ("User-agent: *\nDisallow: /a # why", "/a", "Disallow: /a"),
        ("User-agent: *\nDisallow: /a$b", "/a$b", "Disallow: /a$b"),
        # Other lines part no group (§2.2.4); a blank one does not either.
        ("User-agent: *\nSitemap: https://h/s.xml\n\nFoo: bar\nUser-agent: x\nDisallow: /a", "/a", "Disallow: /a"),
        ("User-agent: *\nCrawl-delay: 5\nUser-agent: x\nDisallow: /a", "/a", None),
        ("Disallow: /a", "/a", None),  # of no group
        ("Disallow: /b\nUser-agent: *\n<html>\nDisallow: /a", "/a", "Disallow: /a"),
        ("user-agent:*\rdisalow : /a\r\n", "/a", "Disallow: /a"),
        ("\ufeffUser-agent: *\nDisallow: /a", "/a", "Disallow: /a"),
        ("User-agent: *\nDisallow: /b\u2028Allow: /a\nDisallow: /a", "/a", "Disallow: /a"),  # no line ends there
    ],
)  # fmt: skip
def test_own_token(text: str, path: str, expected: str | None) -> None:
    assert refusal(text, path) == expected


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("User-agent: *\nDisallow: /", "/a", None),  # `*` is no word to an agent
        ("User-agent: GPTBot\nDisallow: /", "/a", "Disallow: /"),
        ("User-agent: gptbot/1.1\nDisallow: /", "/a", "Disallow: /"),
        ("User-agent: GPTBot-Two\nDisallow: /", "/a", None),
        ("User-agent: GPTBot\nDisallow: /b", "/a", None),
        ("User-agent: GPTBot\nDisallow:", "/a", None),
        ("User-agent: GPTBot\nUser-agent: *\nDisallow: /", "/a", "Disallow: /"),
        ("User-agent: GPTBot\nDisallow: /\n\nUser-agent: x\nUser-agent: GPTBot\nAllow: /a", "/a", None),
        ("User-agent: GPTBot\nDisallow: /", "/robots.txt", None),
    ],
)
def test_agents_by_name(text: str, path: str, expected: str | None) -> None:
    assert agent_refusal(text, path) == expected


def test_names_that_the_rfc_does_not_allow_are_equal_all_the_same() -> None:
    text = "User-agent: img2dataset\nUser-agent: Kangaroo Bot\nDisallow: /"
    assert agent_refusal(text, agent="img2dataset") == agent_refusal(text, agent="Kangaroo Bot") == "Disallow: /"
    assert agent_refusal(text, agent="img") is None


DRAFT = """User-Agent: *
Allow: /
Disallow: /never/
Content-Usage: train-ai=n
Content-Usage: /ai-ok/ train-ai=y
Content-Usage: /both train-ai=y, search=y
content-usage: /both\ttrain-ai=n # the stricter one
Content-Signal: search=yes, ai-train=no
"""


@pytest.mark.parametrize(
    ("text", "path", "usage", "signal"),
    [
        (DRAFT, "/a", "train-ai=n", "search=yes, ai-train=no"),
        (DRAFT, "/ai-ok/x", "train-ai=y", "search=yes, ai-train=no"),
        (DRAFT, "/both", "train-ai=n, search=y", "search=yes, ai-train=no"),
        (DRAFT + "\nUser-agent: mmc-build\nDisallow: /x\n", "/a", None, None),  # our own group says nothing
        ("User-agent: x\nContent-Usage: train-ai=n\n", "/a", None, None),
        ("Content-Usage: train-ai=n\nUser-agent: *\nAllow: /\n", "/a", None, None),
        ("User-agent: *\nContent-Usage: /b/*.jpg train-ai=n\n", "/b/c.jpg", "train-ai=n", None),
        ("User-agent: *\nContent-Usage: /b\n", "/b", None, None),
    ],
)
def test_usage(text: str, path: str, usage: str | None, signal: str | None) -> None:
    robots, target = Robots(text.encode()), target_of(HOST + path)
    assert (robots.usage(target, "content-usage"), robots.usage(target, "content-signal")) == (usage, signal)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("User-agent: *\nCrawl-delay: 2.5", 2.5),
        ("User-agent: *\nCrawl-delay: 2\n\nUser-agent: mmc-build\nDisallow: /x", None),
        ("User-agent: mmc-build\nCrawl-delay: 3", 3.0),
        ("User-agent: *\nCrawl-delay: nan", None),
        ("User-agent: *\nCrawl-delay: -1", None),
        ("User-agent: *\nCrawl-delay: soon", None),
    ],
)
def test_crawl_delay(text: str, expected: float | None) -> None:
    assert Robots(text.encode()).crawl_delay == expected


def test_octets_that_are_no_utf8_match_as_escapes() -> None:
    robots = Robots(b"User-agent: *\nDisallow: /caf\xe9/\n")
    assert not robots.allowed(target_of(HOST + "/caf%E9/x"))
    assert robots.allowed(target_of(HOST + "/cafe/x"))


def test_the_last_incomplete_line_is_cut() -> None:
    head = b"User-agent: *\nDisallow: /private\n"
    body = head + b"#" * (MAX_BYTES - len(head) - len(b"\nDisallow: /p")) + b"\nDisallow: /p"
    assert len(body) == MAX_BYTES
    assert robots_text(body).endswith("\nDisallow: /p")
    cut = Robots(body + b"ictures/hidden\n")  # cut in the middle, the rule would mean far more
    assert cut.allowed(target_of(HOST + "/pictures/a"))
    assert not cut.allowed(target_of(HOST + "/private"))


@pytest.mark.parametrize(
    "text",
    [
        "User-agent: *\n" + "Disallow: /*a\n" * (MAX_STARS + 1),
        "User-agent: *\nDisallow: /" + "*a" * 200_000 + "$",
    ],
)
def test_more_stars_than_one_can_check_are_a_disallow(text: str) -> None:
    assert refusal(text, "/b") == f"Disallow: / (the rules have more than {MAX_STARS} stars)"
    assert refusal(text, "/robots.txt") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("User-agent: GPTBot\nDisallow: /b\n" * 10_000, None),
        ("".join(f"User-agent: GPTBot\nUser-agent: x{n}\nDisallow: /b\n" for n in range(MAX_GROUPS)), None),
        (
            "".join(f"User-agent: GPTBot\nUser-agent: x{n}\nDisallow: /b\n" for n in range(MAX_GROUPS + 1)),
            f"Disallow: / (the rules stand in more than {MAX_GROUPS} groups)",
        ),
        ("".join(f"User-agent: x{n}\n" for n in range(10_000)) + "Disallow: /a\n" * 10_000, None),
        ("User-agent: *\n" + " " * 400_000, None),
        ("User-agent: *\nDisallow" + " " * 400_000 + "\nDis" + "s" * 400_000, None),
    ],
)
def test_hostile_files_end(text: str, expected: str | None) -> None:
    assert agent_refusal(text) == expected
    assert refusal(text) is None


PATHS = st.text("/ab.", max_size=6).map("/".__add__)
RULES = st.lists(st.tuples(st.sampled_from(("Allow", "Disallow")), PATHS), max_size=6)


def file_of(groups: list[tuple[str, list[tuple[str, str]]]]) -> str:
    return "\n\n".join("\n".join((f"User-agent: {name}", *map(": ".join, rules))) for name, rules in groups)


@given(st.lists(st.tuples(st.sampled_from(("*", "mmc-build", "other")), RULES), max_size=3), PATHS)
def test_agrees_with_protego_on_simple_files(groups: list[tuple[str, list[tuple[str, str]]]], path: str) -> None:
    text = file_of([(name, rules or [("Disallow", "")]) for name, rules in groups])
    assert (refusal(text, path) is None) == Protego.parse(text).can_fetch(HOST + path, "mmc-build")


STARRED = st.text("/ab*", max_size=6).filter(lambda path: "**" not in path)  # two count twice for Protego


@given(st.lists(st.tuples(st.sampled_from(("Allow", "Disallow")), STARRED, st.sampled_from(("", "$")))), PATHS)
def test_the_deciding_line_agrees_with_protego(rules: list[tuple[str, str, str]], path: str) -> None:
    text = file_of([("GPTBot", [(name, f"/{pattern}{end}") for name, pattern, end in rules])])
    assert (agent_refusal(text, path) is None) == Protego.parse(text).can_fetch(HOST + path, "GPTBot")


ONE_SLASH = PATHS.filter(lambda path: "//" not in path)  # urllib takes what follows two for a host


@given(st.sampled_from(("*", "mmc-build", "other")), st.lists(ONE_SLASH, min_size=1, max_size=5), ONE_SLASH)
def test_agrees_with_the_standard_library_where_it_can_read(agent: str, disallowed: list[str], path: str) -> None:
    text = file_of([(agent, [("Disallow", one) for one in disallowed])])  # its order of rules is not the RFC's
    parser = urllib.robotparser.RobotFileParser()
    parser.parse(text.splitlines())
    assert (refusal(text, path) is None) == parser.can_fetch("mmc-build", HOST + path)
