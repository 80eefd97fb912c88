"""What the hosts of a crawl say of themselves, asked once each: who waits for it, and when it is forgotten."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from yarl import URL

from mmc4_builder.host_files import HostFile, HostRules, unreachable

T = TypeVar("T")

TDMREP: Final = "/.well-known/tdmrep.json"
_PORTS: Final = {"http": 80, "https": 443}
_COST: Final = (4096, 16)  # bytes of memory that rules take: at least, and for each byte of the files
# A host that cannot be connected to has refused nothing: its URLs fail with the reason itself.
_PLAIN: Final = frozenset(
    {"dns_failure", "connect_failed", "tls_failed", "refused_address", "host_down", "host_budget"}
)


@dataclass(slots=True, eq=False)
class Authority(Generic[T]):
    """Scheme, host and port: what its files say, or those who wait for it."""

    origin: str
    waiting: list[T] = field(default_factory=list)
    robots: HostFile | None = None
    rules: HostRules | None = None  # None until robots.txt has come, or not come
    failure: str | None = None  # why its URLs cannot be asked for
    known: bool = False  # both files have been asked for
    silent: bool = False  # there is neither a rule nor a word on use in its files
    cost: int = _COST[0]

    @property
    def robots_url(self) -> str:
        return f"{self.origin}/robots.txt"


class Authorities(Generic[T]):
    """Authorities by their origin. Above `max_bytes`, those that were unused longest are forgotten."""

    def __init__(self, max_bytes: int, keep: Callable[[HostFile], None] | None) -> None:
        self._max_bytes = max_bytes
        self._keep = keep
        self._known: OrderedDict[str, Authority[T]] = OrderedDict()
        self._asked: dict[str, Authority[T]] = {}
        self._bytes = 0

    def find(self, target: URL, host: str) -> Authority[T]:
        """The authority of this URL; a new one has nobody waiting, and its robots.txt is to be asked for."""
        origin = origin_of(target, host)
        if (authority := self._known.get(origin)) is not None:
            self._known.move_to_end(origin)
            return authority
        return self._asked.setdefault(origin, Authority(origin))

    def learn(self, authority: Authority[T], file: HostFile, hops: int) -> str | None:
        """Takes in robots.txt, then tdmrep.json. The URL of the file to ask for next, None when all is known."""
        if self._keep:
            self._keep(file)
        authority.cost += _COST[1] * len(file.body)
        if authority.rules is None:
            authority.robots = file
            authority.rules = HostRules.of(file)
            authority.failure = _failure(file, hops)
            if authority.failure is None and authority.rules.allowed(authority.origin + TDMREP):
                return authority.origin + TDMREP
        elif file.body:
            authority.rules = HostRules.of(authority.robots, file)
        authority.silent = authority.failure is None and authority.cost == _COST[0]
        self._settle(authority)
        return None

    def _settle(self, authority: Authority[T]) -> None:
        authority.known, authority.robots = True, None
        self._known[authority.origin] = self._asked.pop(authority.origin)
        self._bytes += authority.cost
        while self._bytes > self._max_bytes and len(self._known) > 1:
            self._bytes -= self._known.popitem(last=False)[1].cost


def _failure(robots: HostFile, hops: int) -> str | None:
    """Why the URLs of a host must not be asked for, whatever its rules are."""
    if robots.reason in _PLAIN and not hops:
        return robots.reason
    return "robots_unreachable" if unreachable(robots) else None


def host_of(target: URL) -> str:
    """The host by which requests are paced, whatever the port."""
    return (target.raw_host or "").rstrip(".").lower()


def origin_of(target: URL, host: str) -> str:
    """Scheme, host and, where it is not the scheme's own, port."""
    scheme, port = target.scheme, target.port
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}" if port == _PORTS.get(scheme) else f"{scheme}://{name}:{port}"
