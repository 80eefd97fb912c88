"""A real web server on 127.0.0.1 that serves a folder, knows Range, and fails as it is told."""

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with the next `times` requests for a path (None: with every one)."""

    times: int | None = 1
    status: int | None = None  # answer this instead of the file
    headers: Mapping[str, str] = field(default_factory=dict)  # added, or replacing; "" removes
    body: bytes | None = None  # serve this instead of the file
    cut_after: int | None = None  # close the connection after so many bytes of the body
    delay: float = 0.0  # seconds before the answer
    ignore_range: bool = False
    length_error: int = 0  # added to Content-Length
    chunked: bool = False  # no Content-Length, chunked transfer
    close_delimited: bool = False  # no Content-Length, no chunks: closing is the end


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request that the server saw."""

    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    status: int


class FolderServer(ThreadingHTTPServer):
    """Serves `folder`; `fail` queues faults for a path; `requests` is everything asked so far."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requests: list[Request] = []
        self._faults: dict[str, list[tuple[Fault, int | None]]] = {}
        self._lock = threading.Lock()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def url(self, path: str) -> str:
        return f"{self.root}/{path.lstrip('/')}"

    def fail(self, path: str, *faults: Fault) -> None:
        """The next requests for `path` meet these faults, in this order."""
        queue = self._faults.setdefault("/" + path.lstrip("/"), [])
        queue.extend((fault, fault.times) for fault in faults)

    def asked(self, path: str) -> Sequence[Request]:
        return [request for request in self.requests if request.path == "/" + path.lstrip("/")]

    def next_fault(self, path: str) -> Fault:
        with self._lock:
            queue = self._faults.get(path, [])
            if not queue:
                return Fault()
            fault, left = queue[0]
            if left is not None:
                queue[0] = (fault, left - 1)
                if left <= 1:
                    queue.pop(0)
            return fault

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the tests: nothing to print."""


@contextmanager
def serve(folder: Path) -> Iterator[FolderServer]:
    """`with serve(folder) as server:` — stopped, and its port freed, at the end."""
    server = FolderServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FolderServer

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        fault = self.server.next_fault(path)
        if fault.delay:
            time.sleep(fault.delay)
        headers: dict[str, str] = {}
        file = self.server.folder / path.lstrip("/")
        if fault.status is not None:
            status, body = fault.status, fault.body or b""
        elif fault.body is None and not file.is_file():
            status, body = 404, b"not found"
        else:
            data = fault.body if fault.body is not None else file.read_bytes()
            status, headers, body = _part(data, None if fault.ignore_range else self.headers.get("Range"))
        seen = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Request(method=self.command, path=path, headers=seen, status=status))
        self._send(status, {**headers, **fault.headers}, body if with_body else b"", len(body), fault)

    def _send(self, status: int, headers: Mapping[str, str], body: bytes, length: int, fault: Fault) -> None:
        self.send_response(status)
        if fault.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not fault.close_delimited:
            self.send_header("Content-Length", str(length + fault.length_error))
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        cut = fault.cut_after is not None and fault.cut_after < len(body)
        if cut or fault.close_delimited or fault.length_error:
            self.close_connection = True
        self.end_headers()
        body = body[: fault.cut_after] if cut else body
        if fault.chunked and body:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body))
        else:
            self.wfile.write(body)
        if fault.chunked and not cut:
            self.wfile.write(b"0\r\n\r\n")


def _part(data: bytes, wanted: str | None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body for a Range header of the form bytes=a-[b]."""
    headers = {"ETag": f'"{len(data)}"', "Accept-Ranges": "bytes"}
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
    if not found:
        return 200, headers, data
    start = int(found[1])
    if start >= len(data):
        return 416, {"Content-Range": f"bytes */{len(data)}"}, b""
    stop = min(len(data), int(found[2]) + 1) if found[2] else len(data)
    return 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}, data[start:stop]
