"""Patterns over a URL's path and query, as robots.txt, Content-Usage and tdmrep.json write them.

`*` stands for any run of octets and a `$` at the end for the end of the URL; anything else is a prefix
(RFC 9309 §2.2.3). Both sides are compared in one spelling of percent-encoding (§2.2.2). Nothing here is a
regular expression: a hostile pattern costs no more than its length.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Payload = TypeVar("Payload")

_PLAIN = re.compile(r"[A-Za-z0-9_.~/=-]*")
_OTHER = re.compile(r"%([0-9A-Fa-f]{2})|([^A-Za-z0-9_.~/=%-])")
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_BREAKS = re.compile(r"[\t\r\n]")  # urlsplit and browsers drop them


def target_of(url: str) -> str:
    """What patterns are held against: path and query from the first slash, without the fragment."""
    text = _BREAKS.sub("", url.partition("#")[0].strip())
    found = _AUTHORITY.match(text)
    path = text[found.end() :] if found else text
    return normal(path if path.startswith("/") else "/" + path)


def normal(text: str) -> str:
    """One spelling for all that mean the same octets: `%7e` and `~`, `%c3%a9` and `é`, `:` and `%3A`."""
    return text if _PLAIN.fullmatch(text) else _OTHER.sub(_respell, text)


def _respell(found: re.Match[str]) -> str:
    if found[1]:
        char = chr(int(found[1], 16))
        return char if char != "/" and _PLAIN.fullmatch(char) else "%" + found[1].upper()
    octets = found[2].encode("utf-8", "surrogatepass")
    return "".join(f"%{octet:02X}" for octet in octets)


@dataclass(frozen=True, slots=True)
class PathPattern:
    """One pattern, taken apart."""

    text: str  # in the normal spelling, with its stars and its `$`
    head: str  # before the first star
    parts: tuple[str, ...]  # between and after the stars; empty where there is none
    to_end: bool

    @classmethod
    def of(cls, pattern: str) -> "PathPattern":
        to_end = pattern.endswith("$")
        head, *parts = (normal(part) for part in re.split(r"\*+", pattern[:-1] if to_end else pattern))
        text = "*".join((head, *parts)) + "$" * to_end
        return cls(text, head, tuple(parts), to_end)

    def matches(self, target: str) -> bool:
        """Whether it covers this target, as given by `target_of`."""
        if not self.parts:
            return target == self.head if self.to_end else target.startswith(self.head)
        if not target.startswith(self.head):
            return False
        at = len(self.head)
        for part in self.parts[:-1]:
            found = target.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        last = self.parts[-1]
        return len(target) - len(last) >= at and target.endswith(last) if self.to_end else target.find(last, at) >= 0


class Longest(Generic[Payload]):
    """Many patterns, asked for the longest that covers a target: prefixes by look-up, the others in turn."""

    __slots__ = ("_lengths", "_others", "_prefixes")

    def __init__(self, patterns: Iterable[tuple[PathPattern, Payload]]) -> None:
        self._prefixes: dict[str, list[Payload]] = {}
        others: list[tuple[PathPattern, Payload]] = []
        for pattern, payload in patterns:
            if pattern.parts or pattern.to_end:
                others.append((pattern, payload))
            else:
                self._prefixes.setdefault(pattern.text, []).append(payload)
        self._lengths = sorted({len(prefix) for prefix in self._prefixes}, reverse=True)
        self._others = sorted(others, key=lambda one: -len(one[0].text))

    def find(self, target: str) -> tuple[int, list[Payload]]:
        """Length of the longest pattern that covers it and all payloads of that length; (-1, []) for none."""
        best, found = -1, list[Payload]()
        for length in self._lengths:
            if length <= len(target) and (payloads := self._prefixes.get(target[:length])):
                best, found = length, list(payloads)
                break
        for pattern, payload in self._others:
            length = len(pattern.text)
            if length < best:
                break
            if pattern.matches(target):
                if length > best:
                    best, found = length, []
                found.append(payload)
        return best, found
