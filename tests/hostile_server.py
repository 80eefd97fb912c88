"""A small hostile web on 127.0.0.1: each host has a fault of its own, and a name under .localhost.

    with HostileServer(folder) as web:
        results = fetch_all([case.url for case in web.cases()], web.config(), refuse=refuse)

`cases` says what has to become of each URL. `web.seen` holds what was asked, so that a test can say what was not.
"""

import contextlib
import gzip
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import faults
from faults import Route, Talk, redirect
from pictures import jpeg, png

from mmc4_builder.fetch import FetchConfig
from mmc4_builder.signals import Statement

GOOD = jpeg(320, 240)
ROBOTS = "/robots.txt"
TDMREP = "/.well-known/tdmrep.json"
INSIDE = "inside.example"  # a name that points to a private address
HIDDEN = b"User-agent: *\nDisallow: /.well-known/\n"
DISALLOW = b"User-agent: *\nDisallow: /private/\n"


class Case(NamedTuple):
    """A URL, the reason with which its fetch ends, and the reason with which its bytes are no picture to keep."""

    url: str
    reason: str | None = None
    picture: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """One request: for whom, for what, and from when to when."""

    host: str
    path: str
    start: float
    end: float
    headers: dict[str, str]


def refuse(statements: tuple[Statement, ...]) -> str | None:
    """A policy for tests that do not want to have the real one."""
    for statement in statements:
        if statement.name == "tdmrep:tdm-reservation" and statement.value.startswith("1"):
            return "optout_tdm"
        if statement.name == "header:x-robots-tag" and "noai" in statement.value:
            return "optout_header"
    return None


@dataclass
class _Door(faults.FaultServer):
    """One port. Routes by host and path; the path "" stands for all others of a host."""

    hosts: dict[str, dict[str, Route]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            connection.settimeout(10)
            if self.tls:
                connection = stack.enter_context(self.tls.wrap_socket(connection, server_side=True))
            request = faults._read_request(connection)
            if request is None:
                return
            start = time.monotonic()
            host = request.headers["host"].rpartition(":")[0]
            with self._lock:
                before = sum((one.host, one.path) == (host, request.path) for one in self.seen)
                place = len(self.seen)
                self.seen.append(Seen(host, request.path, start, float("inf"), request.headers))
            routes = self.hosts.get(host, {})
            route = routes.get(request.path) or routes.get("") or faults.not_found
            try:
                route(Talk(connection, request, before + 1, self._closing))
            finally:
                with self._lock:
                    self.seen[place] = Seen(host, request.path, start, time.monotonic(), request.headers)


class HostileServer:
    """Three ports: plain, with a certificate of secure.localhost, and with one that nobody has signed."""

    def __init__(self, folder: Path) -> None:
        for name in ("secure", "untrusted"):
            (folder / name).mkdir()
        tls, self.ca_file = faults.self_signed(folder / "secure", "secure.localhost")
        untrusted, _ = faults.self_signed(folder / "untrusted", "untrusted.localhost")
        self.seen: list[Seen] = []
        self.hosts = hosts()
        self._plain, self._tls, self._untrusted = (
            _Door({}, context, hosts=self.hosts, seen=self.seen) for context in (None, tls, untrusted)
        )

    def __enter__(self) -> "HostileServer":
        self._stack = contextlib.ExitStack()
        for door in (self._plain, self._tls, self._untrusted):
            self._stack.enter_context(door)
        port = self._plain.port
        self.hosts["redirects"]["/to-forbidden"] = redirect(f"http://robots-good.localhost:{port}/private/b.jpg")
        self.hosts["redirects"]["/away"] = redirect(f"http://fine.localhost:{port}/1.jpg")
        self.hosts["robots-moved"][ROBOTS] = redirect(f"http://robots-good.localhost:{port}{ROBOTS}")
        for name in list(self.hosts):
            self.hosts[f"{name}.localhost"] = self.hosts.pop(name)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def ports(self) -> tuple[int, ...]:
        return 80, self._plain.port, self._tls.port, self._untrusted.port

    def url(self, host: str, path: str) -> str:
        return f"http://{host}.localhost:{self._plain.port}{path}"

    def paths(self, host: str) -> list[str]:
        """What was asked of a host, in order."""
        return [one.path for one in self.seen if one.host == f"{host}.localhost"]

    def visits(self, host: str) -> list[Seen]:
        return [one for one in self.seen if one.host == f"{host}.localhost"]

    def config(self, **changes: object) -> FetchConfig:
        """Patience for a test, and this machine let through."""
        settings: dict[str, object] = {
            "contact": "https://crawl.example/about",
            "delay_seconds": 0.0,
            "max_bytes": 1 << 20,
            "connect_seconds": 3.0,
            "total_seconds": 6.0,
            "grace_seconds": 1.0,
            "retry_seconds": 0.02,
            "max_retry_after": 5.0,
            "ports": self.ports,
            "ca_file": str(self.ca_file),
            "resolve": (f"{INSIDE}:80:10.0.0.7",),
            "allow_private": True,
        }
        return FetchConfig(**{**settings, **changes})  # type: ignore[arg-type]

    def cases(self) -> list[Case]:
        """Every fault, and good neighbours. Opt-out reasons are those of `refuse`, and of the real policy."""
        found = [
            Case(self.url(host, path), reason, picture)
            for host, expected in EXPECTED.items()
            for path, (reason, picture) in expected.items()
        ]
        secure, untrusted = self._tls.port, self._untrusted.port
        found += [
            Case(f"https://secure.localhost:{secure}/a.jpg"),
            Case(f"https://other.localhost:{secure}/a.jpg", "tls_failed"),
            Case(f"https://untrusted.localhost:{untrusted}/a.jpg", "tls_failed"),
            Case("http://no-such-host.invalid/a.jpg", "dns_failure"),
            Case(f"http://{INSIDE}/a.jpg", "refused_address"),
            Case("http://169.254.169.254/latest/meta-data/a.jpg", "refused_address"),
            Case("http://[::1]/a.jpg", "refused_address"),
            Case("http://2130706433/a.jpg", "bad_host"),
        ]
        return found


def good(talk: Talk) -> None:
    talk.reply(200, GOOD, ("Content-Type", "image/jpeg"))


def serves(body: bytes, *headers: tuple[str, str], status: int = 200) -> Route:
    return lambda talk: talk.reply(status, body, *headers)


def fails(status: int, *headers: tuple[str, str], times: int = 10**9) -> Route:
    """Fails the first times, then serves the picture."""
    return lambda talk: talk.reply(status, b"", *headers) if talk.hits <= times else good(talk)


def slowly(talk: Talk) -> None:
    """A good picture that takes its time, so that requests would overlap if they could."""
    talk.closing.wait(0.05)
    good(talk)


def drip(talk: Talk) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    talk.drip(GOOD, 1.0)


def many_headers(talk: Talk) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(5000)) + b"\r\n")


SILENT: dict[str, Route] = {ROBOTS: faults.not_found, TDMREP: faults.not_found}  # hosts that say nothing


def hosts() -> dict[str, dict[str, Route]]:
    """Host -> path -> what is done."""
    noise = random.Random(7).randbytes(20_000)
    reserved = b'[{"location": "/reserved/", "tdm-reservation": 1}]'
    served = {
        "fine": {"": good},
        "secure": {"": good},
        "slow": {"": slowly},
        "storm": {**SILENT, "": fails(429)},
        "storm-says-when": {"/a.jpg": fails(429, ("Retry-After", "1"), times=2)},
        "storm-forever": {"": fails(503, ("Retry-After", "86400"))},
        "storm-later": {**SILENT, "": fails(503, ("Retry-After", "86400"))},
        "down": {**SILENT, "": fails(500)},
        "flaps": {"/a.jpg": fails(500, times=1), "/b.jpg": fails(502, times=2), "/c.jpg": fails(500)},
        "resets-once": {"/a.jpg": lambda talk: talk.reset() if talk.hits == 1 else good(talk)},
        "redirects": {
            "/loop": redirect("/loop"),
            "/to-metadata": redirect(faults.METADATA),
            "/to-loopback": redirect("http://[::1]/"),
            "/to-number": redirect("http://2130706433/"),
            "/to-inside": redirect(f"http://{INSIDE}/"),
            "/to-file": redirect("file:///etc/passwd"),
            "/to-other-port": redirect("http://127.0.0.1:22/"),
            "/nowhere": serves(b"", status=302),
            "/moved": redirect("/good.jpg", 301),
            "/good.jpg": good,
        },
        "bodies": {
            "/bomb.gz": faults.gzip_bomb,
            "/bomb.png": serves(png(60_000, 60_000, body=bytes(1 << 20))),
            "/endless": faults.endless,
            "/longer": lambda talk: talk.reply(200, GOOD, length=len(GOOD) + 10),
            "/shorter": lambda talk: talk.reply(200, GOOD, length=len(GOOD) // 2),
            "/cut.jpg": serves(GOOD[: len(GOOD) // 2]),
            "/html.jpg": serves(b"<!doctype html><p>no picture", ("Content-Type", "image/jpeg")),
            "/a.svg": serves(b"<svg xmlns='http://www.w3.org/2000/svg'/>", ("Content-Type", "image/svg+xml")),
            "/empty": serves(b""),
            "/coded.jpg": serves(gzip.compress(GOOD), ("Content-Encoding", "gzip")),
            "/brotli": serves(GOOD, ("Content-Encoding", "br")),
        },
        "drips": {"/body": drip},
        "drips-head": {"/head": faults.drip_header},
        "stalls": {"/head": faults.stalled_header},
        "stalls-late": {"/body": faults.stalled_body},
        "headers": {"/long": faults.endless_header, "/many": many_headers, "/none": faults.no_http},
        "hangs-up": {"/reset": faults.reset_at_once, "/close": faults.hang_up, "/late": faults.reset_in_body},
        "robots-good": {ROBOTS: serves(DISALLOW), "": good},
        "robots-ours": {ROBOTS: serves(b"User-agent: mmc-build\nDisallow: /\n\nUser-agent: *\nAllow: /"), "": good},
        "robots-404": {ROBOTS: faults.not_found, "": good},
        "robots-500": {ROBOTS: fails(500), "": good},
        "robots-429": {ROBOTS: fails(429), "": good},
        "robots-flaps": {ROBOTS: lambda talk: talk.reply(*((500,) if talk.hits == 1 else (200, DISALLOW))), "": good},
        "robots-drips": {ROBOTS: drip, "": good},
        "robots-resets": {ROBOTS: faults.reset_at_once, "": good},
        "robots-moved": {"": good},
        "robots-loops": {ROBOTS: redirect(ROBOTS), "": good},
        "robots-to-metadata": {ROBOTS: redirect(faults.METADATA), "": good},
        "robots-huge": {ROBOTS: serves(DISALLOW + b"# a comment\n" * 90_000), "": good},
        "robots-bomb": {ROBOTS: faults.gzip_bomb, "": good},
        "robots-binary": {ROBOTS: serves(noise), "": good},
        "robots-slow": {ROBOTS: serves(b"User-agent: *\nCrawl-delay: 0.4\n"), "": good},
        "reserved": {TDMREP: serves(reserved), "": good},
        "reserved-in-vain": {ROBOTS: serves(HIDDEN), TDMREP: serves(reserved), "": good},
        "says-noai": {"/a.jpg": serves(GOOD, ("X-Robots-Tag", "noai")), "/b.jpg": good},
    }  # fmt: skip
    return {name: dict(routes) for name, routes in served.items()}


Expected = tuple[str | None, str | None]
FINE: Expected = (None, None)


def ends(reason: str) -> Expected:
    return reason, None


EXPECTED: dict[str, dict[str, Expected]] = {
    "fine": {f"/{number}.jpg": FINE for number in range(5)},
    "slow": {f"/{number}.jpg": FINE for number in range(3)},
    "storm": {path: ends("http_429") for path in ("/a.jpg", "/b.jpg", "/c.jpg")},
    "storm-says-when": {"/a.jpg": FINE},
    "storm-forever": {"/a.jpg": ends("robots_unreachable")},
    "storm-later": {"/a.jpg": ends("http_503")},
    "flaps": {"/a.jpg": FINE, "/b.jpg": FINE, "/c.jpg": ends("http_500")},
    "resets-once": {"/a.jpg": FINE},
    "redirects": {
        "/loop": ends("too_many_redirects"),
        "/to-metadata": ends("refused_address"),
        "/to-loopback": ends("refused_address"),
        "/to-number": ends("bad_redirect"),
        "/to-inside": ends("refused_address"),
        "/to-file": ends("bad_redirect"),
        "/to-other-port": ends("bad_redirect"),
        "/to-forbidden": ends("optout_robots"),
        "/nowhere": ends("bad_redirect"),
        "/moved": FINE,
        "/away": FINE,
        "/absent.jpg": ends("http_404"),
    },
    "bodies": {
        "/bomb.gz": ends("content_encoding"),
        "/bomb.png": (None, "too_many_pixels"),
        "/endless": ends("too_many_bytes"),
        "/longer": ends("truncated_body"),
        "/shorter": (None, "truncated"),
        "/cut.jpg": (None, "truncated"),
        "/html.jpg": (None, "not_an_image"),
        "/a.svg": (None, "not_an_image"),
        "/empty": ends("empty"),
        "/coded.jpg": FINE,
        "/brotli": ends("content_encoding"),
    },
    "drips": {"/body": ends("too_slow")},
    "drips-head": {"/head": ends("timeout")},
    "stalls": {"/head": ends("timeout")},
    "stalls-late": {"/body": ends("too_slow")},
    "headers": {path: ends("bad_response") for path in ("/long", "/many", "/none")},
    "hangs-up": {
        "/reset": ends("connection_reset"),
        "/close": ends("connection_reset"),
        "/late": ends("truncated_body"),
    },
    "robots-good": {"/private/a.jpg": ends("optout_robots"), "/public.jpg": FINE},
    "robots-ours": {"/a.jpg": ends("optout_robots")},
    "robots-404": {"/a.jpg": FINE},
    "robots-500": {"/a.jpg": ends("robots_unreachable"), "/b.jpg": ends("robots_unreachable")},
    "robots-429": {"/a.jpg": ends("robots_unreachable")},
    "robots-flaps": {"/a.jpg": FINE, "/private/a.jpg": ends("optout_robots")},
    "robots-drips": {"/a.jpg": ends("robots_unreachable")},
    "robots-resets": {"/a.jpg": ends("robots_unreachable")},
    "robots-moved": {"/a.jpg": FINE, "/private/a.jpg": ends("optout_robots")},
    "robots-loops": {"/a.jpg": FINE},
    "robots-to-metadata": {"/a.jpg": ends("robots_unreachable")},
    "robots-huge": {"/a.jpg": FINE, "/private/a.jpg": ends("optout_robots")},
    "robots-bomb": {"/a.jpg": ends("robots_unreachable")},
    "robots-binary": {"/a.jpg": FINE},
    "robots-slow": {"/a.jpg": FINE, "/b.jpg": FINE},
    "reserved": {"/a.jpg": FINE, "/reserved/a.jpg": ends("optout_tdm")},
    "reserved-in-vain": {"/reserved/a.jpg": FINE},
    "says-noai": {"/a.jpg": ends("optout_header"), "/b.jpg": FINE},
}


def most_at_once(visits: Sequence[Seen]) -> int:
    """How many of these requests were under way at the same time."""
    return max(sum(one.start <= other.start < one.end for one in visits) for other in visits)


__all__ = ["EXPECTED", "GOOD", "ROBOTS", "TDMREP", "Case", "HostileServer", "Seen", "most_at_once", "refuse"]
