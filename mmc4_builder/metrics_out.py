"""Where the figures of a running build go: a file of JSON lines, and an address that Prometheus reads.

Neither can stop a build: a file that cannot be written any more, or a reader that goes away, is told of once.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6
from typing import Any, Protocol, TextIO

from mmc4_builder import __version__
from mmc4_builder.metrics import CONTENT_TYPE, State, exposition, line

LOOPBACK = "127.0.0.1"
READ_SECONDS = 10.0  # that a client may take for its request


class MetricsError(Exception):
    """The figures cannot go where they are to go; the message names the place and the remedy."""


class Sink(Protocol):
    """Somebody who is told how each stage goes."""

    def tell(self, state: State) -> None: ...


class Lines:
    """One JSON line an interval, and one at the end of each stage."""

    def __init__(
        self,
        stream: TextIO,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._stream: TextIO | None = stream
        self._seconds = seconds
        self._clock = clock
        self._now = now
        self._told: tuple[str, float] | None = None  # stage, and when

    def tell(self, state: State) -> None:
        is_new = self._told is None or self._told[0] != state.stage
        if is_new or state.is_last or (self._told and self._clock() - self._told[1] >= self._seconds):
            self._write(line(state, self._now()) + "\n")
            self._told = None if state.is_last else (state.stage, self._clock())

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._stream = None
            print(f"mmc4-build: no more lines of metrics: {error}. The build goes on.", file=sys.stderr)


class Endpoint:
    """The last state of each stage, ready to be read."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self.page = exposition((), __version__)  # replaced as a whole: readers are other threads

    def tell(self, state: State) -> None:
        self._states[state.stage] = state
        self.page = exposition(self._states.values(), __version__)


@contextmanager
def opened(path: str | None, seconds: float, address: str | None) -> Iterator[tuple[Sink, ...]]:
    """Whoever is to be told, by the flags of the command line. MetricsError before anything starts."""
    with ExitStack() as stack:
        sinks: list[Sink] = []
        if path is not None:
            sinks.append(stack.enter_context(lines_to(path, seconds)))
        if address is not None:
            sinks.append(stack.enter_context(served(address)))
        yield tuple(sinks)


@contextmanager
def lines_to(path: str, seconds: float) -> Iterator[Lines]:
    """Lines at the end of a local file, or on stdout for `-`. MetricsError where it cannot be written."""
    if path == "-":
        yield Lines(sys.stdout, seconds)
        return
    try:
        stream = open(path, "a", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise MetricsError(f"cannot write --metrics {path}: {error.strerror}; give a local file, or -") from error
    try:
        yield Lines(stream, seconds)
    finally:
        with suppress(OSError):  # a full disk has been told of
            stream.close()


@contextmanager
def served(address: str) -> Iterator[Endpoint]:
    """An endpoint at `[HOST:]PORT`, of this machine alone unless a host is named; port 0 takes any free one.

    MetricsError where the address is taken, or is none.
    """
    host, port = parse_address(address)
    endpoint = Endpoint()
    try:
        server = _server(host, port, endpoint)
    except (OSError, OverflowError) as error:
        raise MetricsError(
            f"cannot serve --metrics-port {address}: {getattr(error, 'strerror', None) or error}; "
            "give another port, or 0 for any that is free"
        ) from error
    shown = f"[{host}]" if ":" in host else host
    print(f"metrics at http://{shown}:{server.server_address[1]}/metrics", file=sys.stderr)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def parse_address(address: str) -> tuple[str, int]:
    """("127.0.0.1", 9464) of "9464", ("::", 9464) of "[::]:9464"; MetricsError for anything else."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or LOOPBACK
    if not (port.isascii() and port.isdecimal() and int(port[:6]) <= 65535 and "/" not in host):
        raise MetricsError(f"--metrics-port {address} is no port: give one, as 9464, or HOST:PORT, as 0.0.0.0:9464")
    return host, int(port)


def _server(host: str, port: int, endpoint: Endpoint) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        address_family = AF_INET6 if ":" in host else ThreadingHTTPServer.address_family
        allow_reuse_address = True  # after an end, the port rests for a minute; one that listens is refused still
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that went away is none of the build's business."""

    class Handler(BaseHTTPRequestHandler):
        timeout = READ_SECONDS
        server_version = f"mmc4-build/{__version__}"
        sys_version = ""

        def do_GET(self) -> None:
            found = self.path.partition("?")[0] == "/metrics"
            body = (endpoint.page if found else "look at /metrics\n").encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", CONTENT_TYPE if found else "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are not told of: stderr is for the build."""

    return Server((host, port), Handler)
