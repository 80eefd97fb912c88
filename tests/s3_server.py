"""A real S3 server on 127.0.0.1 (Versity's gateway over a folder), and a proxy before it that counts and breaks things.

The server is $MMC4_S3_SERVER, a `versitygw` program, or is built by Go into the user's cache, once.
"""

import fcntl
import http.client
import itertools
import os
import random
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

MODULE = "github.com/versity/versitygw/cmd/versitygw"
VERSION = "v1.8.0"
BUCKET = "bucket"
ACCESS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "tester-secret", "AWS_DEFAULT_REGION": "us-east-1"}
START_SECONDS = 30.0
SLOW_SECONDS = 0.3
FAULTS = ("503", "503", "reset", "half_request", "half_answer", "lost_answer", "slow")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


class NoServerError(Exception):
    """There is no server to test against; the message says what is missing."""


def program() -> Path:
    """The server, built where it is not there yet. NoServerError where it cannot be had."""
    if given := os.environ.get("MMC4_S3_SERVER"):
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mmc4-build", f"versitygw-{VERSION}")
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes start at once
        if not (cache / "versitygw").exists():
            _build(cache)
    return cache / "versitygw"


def _build(folder: Path) -> None:
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        raise NoServerError(
            f"no S3 server to test against: install Go, or `go install {MODULE}@{VERSION}` elsewhere and name the "
            "program in MMC4_S3_SERVER"
        )
    environment = {**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0"}
    done = subprocess.run([go, "install", f"{MODULE}@{VERSION}"], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise NoServerError(f"go install {MODULE}@{VERSION} failed: {done.stderr[-500:]}")


@dataclass(frozen=True)
class Server:
    """A running server; its objects are files below `folder`/`BUCKET`."""

    port: int
    folder: Path
    process: "subprocess.Popen[bytes]"

    @property
    def bucket(self) -> Path:
        return self.folder / BUCKET


@contextmanager
def serve_or_skip(folder: Path) -> Iterator[Server]:
    """The server for tests, which are skipped where it cannot be had."""
    pytest.importorskip("boto3", reason="the tests of object stores need boto3: pip install 'mmc4-build[aws]'")
    try:
        program()
    except NoServerError as error:
        pytest.skip(str(error))
    with serve(folder) as server:
        yield server


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """The server, for as long as the block runs."""
    buckets, log = folder / "buckets", folder / "server.log"
    for made in (buckets / BUCKET, folder / "attributes"):
        made.mkdir(parents=True)
    port = free_port()
    access, secret = ACCESS["AWS_ACCESS_KEY_ID"], ACCESS["AWS_SECRET_ACCESS_KEY"]
    words = [program(), "--access", access, "--secret", secret, "--port", f"127.0.0.1:{port}", "--quiet",
             "posix", "--sidecar", folder / "attributes", buckets]  # fmt: skip
    with open(log, "wb") as stream, subprocess.Popen([*map(str, words)], stdout=stream, stderr=stream) as process:
        try:
            _wait_for(port, process, log)
            yield Server(port, buckets, process)
        finally:
            process.kill()


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the S3 server does not start:\n{log.read_text()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Request:
    """One request that the proxy saw."""

    kind: str  # GET, HEAD, PUT, DELETE, LIST, ...
    key: str
    sent: int  # bytes of its body
    answered: int  # bytes of the answer's
    fault: str
    conditional: bool


@dataclass
class Proxy:
    """What the proxy does, and what it saw. Every request has its own draw, by the seed and its number."""

    upstream: int
    seed: int = 0
    rate: float = 0.0
    down: bool = False  # every request is told to slow down
    down_for: str = ""  # only such a kind of request
    is_old: bool = False  # knows no conditional writes
    requests: list[Request] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    port: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """Of commands that use this store."""
        return {**ACCESS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def fault(self) -> str:
        draw = random.Random(f"{self.seed}:{next(self.numbers)}")
        return draw.choice(FAULTS) if draw.random() < self.rate else ""

    def kinds(self) -> Counter[str]:
        return Counter(request.kind for request in self.requests)

    def faults(self) -> Counter[str]:
        return Counter(request.fault for request in self.requests if request.fault)


@contextmanager
def before(server: Server, *, seed: int = 0, rate: float = 0.0) -> Iterator[Proxy]:
    """A proxy, for as long as the block runs; of `rate` of the requests something goes wrong."""
    proxy = Proxy(server.port, seed, rate)
    listener = _Listener(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    proxy.port = listener.server_address[1]
    threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        listener.server_close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed, and connections that a fault has reset."""


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_expect_100(self) -> bool:
        """Clients wait a second for it before they send a body."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        kind, key = _kind(self.command, self.path)
        conditional = "If-None-Match" in self.headers or "If-Match" in self.headers
        down = self.proxy.down and self.proxy.down_for in ("", kind)
        fault = "503" if down else self.proxy.fault()
        body = self.rfile.read(length // 2 if fault == "half_request" else length)
        answer = self._answer(fault, body, conditional)
        answered = len(answer[2]) if answer else 0
        self.proxy.requests.append(Request(kind, key, length, answered, fault, conditional))
        if answer is None or fault == "lost_answer":
            self._reset()
        else:
            self._send(*answer, cut=fault == "half_answer")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def _answer(self, fault: str, body: bytes, conditional: bool) -> tuple[int, dict[str, str], bytes] | None:
        """Status, headers and body; None where there will be no answer."""
        if fault in ("reset", "half_request"):
            return None
        if fault == "503":
            return 503, {"Content-Type": "application/xml"}, _error("SlowDown", "Please reduce your request rate.")
        if conditional and self.command == "PUT" and self.proxy.is_old:
            return 501, {"Content-Type": "application/xml"}, _error("NotImplemented", "A header you provided ...")
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        return self._ask(body)

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream, timeout=60)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP_BY_HOP:
                upstream.putheader(name, value)
        upstream.endheaders(body)
        response = upstream.getresponse()
        data = response.read()
        upstream.close()
        kept = {name: value for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP}
        return response.status, kept, data

    def _send(self, status: int, headers: dict[str, str], data: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD" and status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        self.wfile.flush()
        if cut:
            self._reset()

    def _reset(self) -> None:
        """A reset instead of an orderly end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        self.wfile = open(os.devnull, "wb")  # noqa: SIM115 - what the base class flushes at its end


def _error(code: str, message: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def _kind(method: str, target: str) -> tuple[str, str]:
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True)
    key = unquote(parts.path).removeprefix(f"/{BUCKET}").lstrip("/")
    if "list-type" in query:
        return "LIST", query.get("prefix", [""])[0]
    if "uploads" in query:
        return ("CREATE UPLOAD" if method == "POST" else "LIST UPLOADS"), key
    if "uploadId" in query:
        return {"PUT": "PART", "POST": "COMPLETE", "DELETE": "ABORT"}.get(method, method), key
    return method, key
