"""What a host says of its URLs in /robots.txt and /.well-known/tdmrep.json, and what no answer means."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mmc4_builder import tdmrep as tdm
from mmc4_builder.path_patterns import target_of
from mmc4_builder.robots import MAX_BYTES, ROBOTS_TOKEN, Robots
from mmc4_builder.signals import Statement, trim

MAX_BODY: Final = MAX_BYTES
_USAGE: Final = ("content-usage", "content-signal")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFile:
    """One answer to a request for such a file, live or archived."""

    url: str  # as asked for, before redirects: its rules hold for that host
    status: int  # of the last response, 0 where none came
    reason: str | None  # why there was none, e.g. "timeout"; None where a response came
    body: bytes  # at most MAX_BODY and one byte are read: the byte tells that the last line is cut
    seen: str  # ISO time


def unreachable(robots: HostFile) -> str | None:
    """Why a robots.txt must be taken for a complete disallow (RFC 9309 §2.3.1.4), None where it need not.

    No answer and 5xx by the RFC; 429 too, as Google and CCBot read it. More redirects than one follows and
    the other 4xx are "unavailable", which allows all (§2.3.1.2, §2.3.1.3).
    """
    if robots.reason == "too_many_redirects":
        return None
    if robots.reason:
        return robots.reason
    return None if 200 <= robots.status < 500 and robots.status != 429 else f"http_{robots.status}"


class HostRules:
    """The rules of one host, parsed once and asked for many URLs."""

    __slots__ = ("_reservations", "_robots", "_robots_file", "_tdmrep_file", "_unreachable")

    def __init__(self, robots: HostFile | None, tdmrep: HostFile | None) -> None:
        self._robots_file, self._tdmrep_file = robots, tdmrep
        self._unreachable = unreachable(robots) if robots else None
        self._robots = Robots(robots.body) if robots and _has_rules(robots) else None
        self._reservations = tdm.parse(tdmrep.body) if tdmrep and _has_rules(tdmrep) else ()

    @classmethod
    def of(cls, robots: HostFile | None, tdmrep: HostFile | None = None) -> "HostRules":
        """None for a file that was never asked for: it says nothing, and forbids nothing."""
        return cls(robots, tdmrep)

    def statements(self, url: str, agents: Sequence[str] = ()) -> tuple[Statement, ...]:
        """All that the files say of this URL: to our own token, to these agents by name, and on use."""
        target = target_of(url)
        return tuple(
            Statement(name=name, value=trim(value), source=file.url, seen=file.seen)
            for file, said in (
                (self._robots_file, self._robots_says(target, agents)),
                (self._tdmrep_file, self._tdmrep_says(target)),
            )
            if file
            for name, value in said
        )

    def allowed(self, url: str) -> bool:
        """Whether our own token may fetch it (RFC 9309); False where robots.txt cannot be reached."""
        return not self._unreachable and (self._robots is None or self._robots.allowed(target_of(url)))

    @property
    def crawl_delay(self) -> float | None:
        """Seconds between requests that the host asks of us, or None. No limit is set here."""
        return self._robots.crawl_delay if self._robots else None

    def _robots_says(self, target: str, agents: Sequence[str]) -> Iterator[tuple[str, str]]:
        if self._unreachable:
            yield "robots:unreachable", self._unreachable
        if robots := self._robots:
            if rule := robots.refusal(target):
                yield f"robots:{ROBOTS_TOKEN}", rule
            for agent in agents:
                if rule := robots.agent_refusal(target, agent):
                    yield f"robots:{agent}", rule
            for name in _USAGE:
                if stated := robots.usage(target, name):
                    yield f"robots:{name}", stated

    def _tdmrep_says(self, target: str) -> Iterator[tuple[str, str]]:
        if self._reservations and (found := tdm.find(self._reservations, target)):
            yield "tdmrep:tdm-reservation", found.value


def _has_rules(file: HostFile) -> bool:
    return file.reason is None and 200 <= file.status < 300
