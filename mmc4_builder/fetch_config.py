"""How to fetch from the live web: limits, deadlines, pace, and who asks."""

import re
from dataclasses import dataclass, fields
from typing import Final

from mmc4_builder import __version__
from mmc4_builder.robots import ROBOTS_TOKEN

_CONTACT = re.compile(r"(?:https?://|mailto:)[!-'*-:<-~]+")  # printable, and nothing that ends a comment
_MAY_BE_ZERO: Final = frozenset(
    {"delay_seconds", "max_crawl_delay", "max_redirects", "retries", "retry_seconds", "max_retry_wait", "seed"}
    | {"max_retry_after", "allow_private"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchConfig:
    """How to fetch. Bodies take about max_ready_bytes + concurrency * max_bytes of memory at most.

    The pace is that of a careful crawler: one connection and a pause of a second for each host. Many hosts
    make it fast, not many requests to one.
    """

    contact: str  # URL of a page (or mailto:) where site owners reach whoever runs this crawl
    agents: tuple[str, ...] = ()  # of others, whose rules in robots.txt `refuse` wants to know as well

    concurrency: int = 64  # requests under way
    per_host: int = 1  # of them to one host name
    delay_seconds: float = 1.0  # between two requests to a host
    max_crawl_delay: float = 30.0  # a Crawl-delay above it counts as this
    max_failures: int = 10  # in a row, until a host counts as down: no connection, timeout, 429, 5xx
    host_seconds: float = 3600.0  # for one host, from its first request on
    host_requests: int = 20_000  # to one host

    window: int = 8192  # URLs taken from the caller and not yet given back
    max_ready_bytes: int = 128 << 20  # of results that wait for the caller; no request starts above it
    max_rules_bytes: int = 256 << 20  # of rules of hosts; above it the longest unused are asked for again
    max_bytes: int = 10 << 20  # of one body, on the wire and decoded
    max_redirects: int = 5

    connect_seconds: float = 10.0  # DNS, TCP and TLS
    total_seconds: float = 30.0  # on the network for one URL, redirects and retries included
    grace_seconds: float = 5.0  # that a transfer may be slower than min_rate; whole seconds count
    min_rate: float = 2048.0  # bytes a second

    retries: int = 2  # of one URL, after what may pass: timeouts, lost connections, 429, 5xx
    retry_seconds: float = 1.0  # most before the first retry where the server names no time; doubles each time
    max_retry_wait: float = 60.0  # to which it doubles
    max_retry_after: float = 120.0  # a host that asks for more is given up
    seed: int = 0  # of the jitter in these waits

    ports: tuple[int, ...] = (80, 443)
    ca_file: str | None = None  # PEM; None: the system's certificates
    resolve: tuple[str, ...] = ()  # "name:port:address": addresses to take for names, checked as any other
    allow_private: bool = False  # for tests: opens 127.0.0.0/8, that is this machine, to any page

    def __post_init__(self) -> None:
        if not _CONTACT.fullmatch(self.contact):
            raise ValueError(f"contact must be an http(s) or mailto URL of yours, not {self.contact!r}")
        for name, value in ((entry.name, getattr(self, entry.name)) for entry in fields(self)):
            if isinstance(value, int | float) and (value < 0 or not (value or name in _MAY_BE_ZERO)):
                raise ValueError(f"{name} must be positive, not {value!r}")

    @property
    def user_agent(self) -> str:
        """Says plainly who asks, where to complain, and which name robots.txt rules may use."""
        return f"mmc4-build/{__version__} (+{self.contact}; {ROBOTS_TOKEN})"
