"""robots.txt (RFC 9309): what it asks of our own token, of AI agents by name, and on the use of content.

Protego decides what our token may fetch. The choice of the group is made here: Protego looks for the group's
name inside the agent's, the RFC wants both to be equal; and a file of many agents times many rules would fill
the memory. For other agents only a group of their own counts, for `*` is no word to them; and the line that
decides is kept as evidence.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from protego import Protego

from mmc4_builder import usage
from mmc4_builder.path_patterns import Longest, PathPattern

ROBOTS_TOKEN: Final = "mmc-build"  # the name that robots.txt rules may use: RFC 9309 allows no digit in it
OWN_TOKENS: Final = (ROBOTS_TOKEN, "mmc4-build")  # the second stands in our User-Agent, and someone will use it
MAX_BYTES: Final = 512_000  # that are read: §2.5 asks for at least 500 KiB
# Stars in the rules for one agent. A file beyond it is taken for `Disallow: /`: nobody can check every URL
# against it, and to skip some of its rules would be to break them. Real files have a few hundred.
MAX_STARS: Final = 2000
TOO_MANY_STARS: Final = f"Disallow: / (the rules have more than {MAX_STARS} stars)"
MAX_GROUPS: Final = 100  # of one agent, each with other agents beside it; likewise
TOO_MANY_GROUPS: Final = f"Disallow: / (the rules stand in more than {MAX_GROUPS} groups)"

_AGENT: Final = "user-agent"
_USAGE: Final = ("content-usage", "content-signal")
# What Protego takes for these names too, so that groups end where it would end them.
_FIELDS: Final = {"useragent": _AGENT, "user agent": _AGENT, "crawl delay": "crawl-delay"} | dict.fromkeys(
    ("dissallow", "dissalow", "disalow", "diasllow", "disallaw"), "disallow"
)
_LINE = re.compile(
    r"^[ \t]*(user[ -]?agent|allow|dis+al+ow|diasllow|disallaw|crawl[ -]delay|content-(?:usage|signal)"
    r"|request[ -]rate|visit[ -]time)(?:[ \t]*:|[ \t])[ \t]*([^#\n]*)",
    re.I | re.M,
)
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
_BREAKS = re.compile(r"\r\n?")
_ODD = re.compile(r"[\x00\x0b\x0c\x1c-\x1e\x85\u2028\u2029\ud800-\udfff]")  # other line ends, and stray octets


@dataclass(slots=True)
class Group:
    """Some agents and the rules for them, (field, value), in the order of the file."""

    agents: set[str] = field(default_factory=set)  # lower-case
    rules: list[tuple[str, str]] = field(default_factory=list)

    def paths(self, name: str) -> Iterator[str]:
        """Of its `allow` or `disallow` rules; an empty one rules nothing."""
        return (value for rule, value in self.rules if rule == name and value)


def robots_text(body: bytes) -> str:
    """The file as text: UTF-8, its first MAX_BYTES up to the last whole line, lines ended by a line feed.

    Octets that are no UTF-8 become percent-encoded, as they are in URLs.
    """
    if len(body) > MAX_BYTES:
        cut = body[: MAX_BYTES + 1]
        body = cut[: max(cut.rfind(b"\n"), cut.rfind(b"\r")) + 1]
    text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    return _ODD.sub(_escaped, _BREAKS.sub("\n", text))


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in found[0].encode("utf-8", "surrogateescape"))


def groups(text: str) -> list[Group]:
    """The groups of a file. Lines that are not of a group (Sitemap, unknown ones) do not part it (§2.2.4)."""
    found: list[Group] = []
    for line in _LINE.finditer(text):
        name = line[1].lower()
        name = _FIELDS.get(name, name)
        if name != _AGENT:
            if found:
                found[-1].rules.append((name, line[2].strip()))
            continue
        if not found or found[-1].rules:
            found.append(Group())
        found[-1].agents.update(_agents(line[2].strip()))
    return found


def _agents(value: str) -> Iterator[str]:
    """The names in a User-agent line: as it stands, and without the version that many write behind it."""
    yield value.lower()
    if token := _TOKEN.match(value):
        yield token[0].lower()


class _Rules:
    """Allow and Disallow of one group, asked for the line that decides."""

    __slots__ = ("_allow", "_disallow", "stars")

    def __init__(self, group: Group) -> None:
        self.stars = _stars(group.rules)
        self._allow = Longest((PathPattern.of(path), path) for path in group.paths("allow"))
        self._disallow = Longest((PathPattern.of(path), path) for path in group.paths("disallow"))

    def verdict(self, target: str) -> tuple[int, bool, str]:
        """(length, allowed, path) of the longest rule that covers the target; at equal length Allow wins."""
        allow, disallow = self._allow.find(target), self._disallow.find(target)
        if disallow[0] > allow[0]:
            return disallow[0], False, disallow[1][0]
        return allow[0], True, ""


class Robots:
    """One robots.txt, read once and asked for many URLs. Memory is a small multiple of the file."""

    def __init__(self, body: bytes) -> None:
        self._groups = _merged(groups(robots_text(body)))
        self._by_agent: dict[str, list[int]] = {}
        for number, group in enumerate(self._groups):
            for agent in group.agents:
                self._by_agent.setdefault(agent, []).append(number)
        named = {number for token in OWN_TOKENS for number in self._by_agent.get(token, ())}
        self._own = sorted(named) or self._by_agent.get("*", [])
        self._rules: dict[int, _Rules] = {}
        lines = [rule for number in self._own for rule in self._groups[number].rules]
        self._too_many_stars = _stars(lines) > MAX_STARS
        asked = [] if self._too_many_stars else lines
        self._heads = Longest(
            (PathPattern.of(_head(value)), None) for name, value in asked if name == "disallow" and value
        )
        self._usage = {name: _usage_rules(asked, name) for name in _USAGE}
        self._protego = _protego(asked)
        self.crawl_delay = _protego([rule for rule in lines if rule[0] == "crawl-delay"]).crawl_delay(ROBOTS_TOKEN)

    def allowed(self, target: str) -> bool:
        """Whether our own token may fetch it, a target as `target_of` gives it. /robots.txt always may be."""
        if self._too_many_stars:
            return target == "/robots.txt"
        if self._heads.find(target)[0] < 0:  # Protego takes 30 us for each URL, and most are far from any rule
            return True
        return self._protego.can_fetch("http://host" + target, ROBOTS_TOKEN)

    def refusal(self, target: str) -> str | None:
        """The line that keeps our own token from the target, None where it may be fetched."""
        if self.allowed(target):
            return None
        return self._deciding(self._own, target) or "Disallow:"  # Protego's own reading of a `$` within

    def agent_refusal(self, target: str, agent: str) -> str | None:
        """The line that keeps this agent from the target, out of the groups that name it."""
        numbers = self._by_agent.get(agent.lower())
        return self._deciding(numbers, target) if numbers else None

    def usage(self, target: str, name: str) -> str | None:
        """What `content-usage` or `content-signal` says of the target, in our own token's group."""
        rules = self._usage[name]
        _, values = rules.find(target) if rules else (-1, [])
        if len(values) < 2:
            return values[0] if values else None
        return usage.as_text(usage.most_restrictive(map(usage.preferences, values)))

    def _deciding(self, numbers: list[int], target: str) -> str | None:
        if target == "/robots.txt":
            return None
        if len(numbers) > MAX_GROUPS:
            return TOO_MANY_GROUPS
        rules = [self._rules_of(number) for number in numbers]
        if sum(one.stars for one in rules) > MAX_STARS:
            return TOO_MANY_STARS
        _, allowed, path = max(one.verdict(target) for one in rules)
        return None if allowed else f"Disallow: {path}"

    def _rules_of(self, number: int) -> _Rules:
        if number not in self._rules:  # most groups are never asked for
            self._rules[number] = _Rules(self._groups[number])
        return self._rules[number]


def _merged(found: Iterable[Group]) -> list[Group]:
    """Groups of the same agents as one (§2.2.1)."""
    by_agents: dict[frozenset[str], Group] = {}
    for group in found:
        by_agents.setdefault(frozenset(group.agents), Group(agents=group.agents)).rules += group.rules
    return list(by_agents.values())


def _stars(lines: Iterable[tuple[str, str]]) -> int:
    return sum(value.count("*") for _, value in lines)


def _head(path: str) -> str:
    """What every URL begins with that a rule can cover, however its `*` and `$` are read."""
    return re.split(r"[*$]", path, maxsplit=1)[0]


def _protego(lines: Iterable[tuple[str, str]]) -> Protego:
    """These rules for everybody: the group is chosen already."""
    return Protego.parse("\n".join(("User-agent: *", *(f"{name}: {value}" for name, value in lines))))


def _usage_rules(lines: Iterable[tuple[str, str]], name: str) -> Longest[str] | None:
    """Content-Usage: [<path> SP] <preferences>; without a path it speaks of all (draft-ietf-aipref-attach-05)."""
    found: list[tuple[PathPattern, str]] = []
    for field_name, value in lines:
        if field_name == name:
            path, *stated = value.split(None, 1) if value.startswith("/") else ("/", value)
            found += [(PathPattern.of(path), one) for one in stated if one]
    return Longest(found) if found else None
