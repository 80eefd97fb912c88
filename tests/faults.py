"""A real HTTP server on 127.0.0.1 that misbehaves on purpose, one fault a path.

A route is a function from a `Talk` (one request, one open connection) to nothing: it may send any bytes at
any pace. Plain sockets and threads, so that what goes over the wire is what the test says.
"""

import contextlib
import datetime
import gzip
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PICTURE = b"\xff\xd8\xff\xe0 not really a picture, but bytes all the same " * 20


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for: path with query, and headers by lower-case name."""

    path: str
    headers: dict[str, str]


class Talk:
    """One request being answered. `closing` is set when the server shuts down: slow routes wait on it."""

    def __init__(self, connection: socket.socket, request: Request, hits: int, closing: threading.Event) -> None:
        self.connection = connection
        self.request = request
        self.hits = hits  # how often this path has been asked for, this time included
        self.closing = closing

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def reply(self, status: int = 200, body: bytes = b"", *headers: tuple[str, str], length: int | None = None) -> None:
        """A whole response; `length` lies about the body's length."""
        lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body) if length is None else length}"]
        lines += [f"{name}: {value}" for name, value in headers]
        self.send("\r\n".join([*lines, "Connection: close", "", ""]).encode("utf-8") + body)

    def drip(self, data: bytes, seconds: float) -> None:
        """One byte at a time, until the client or the server has had enough."""
        for byte in data:
            self.send(bytes([byte]))
            if self.closing.wait(seconds):
                return

    def stall(self) -> None:
        self.closing.wait(60)

    def reset(self) -> None:
        """Closes with RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Route = Callable[[Talk], None]


@dataclass
class FaultServer:
    """`with FaultServer({"/a": route}) as server: ... server.url("/a")`. Unknown paths answer 404."""

    routes: dict[str, Route]
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    address: str = "127.0.0.1"

    def __enter__(self) -> "FaultServer":
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((self.address, 0), backlog=256)
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._acceptor.join()
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    def hits(self, path: str) -> int:
        with self._lock:
            return sum(request.path == path for request in self.requests)

    def _accept(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # A client that hangs up, or refuses the certificate, is what many routes are for.
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            connection.settimeout(10)
            if self.tls:
                connection = stack.enter_context(self.tls.wrap_socket(connection, server_side=True))
            request = _read_request(connection)
            if request is None:
                return
            with self._lock:
                self.requests.append(request)
            talk = Talk(connection, request, self.hits(request.path), self._closing)
            self.routes.get(request.path, not_found)(talk)


def _read_request(connection: socket.socket) -> Request | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = connection.recv(4096)
        if not more:
            return None
        head += more
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Request(first.split(" ")[1], {name.lower(): value for name, value in headers.items()})


def self_signed(folder: Path, name: str = "localhost") -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context with a certificate of its own for this name, and that certificate's PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, secret)
    return context, pem


def not_found(talk: Talk) -> None:
    talk.reply(404, b"nothing here")


def picture(talk: Talk) -> None:
    talk.reply(200, PICTURE, ("Content-Type", "image/jpeg"))


def redirect(location: str, status: int = 302) -> Route:
    return lambda talk: talk.reply(status, b"moved", ("Location", location))


def flapping(status: int, times: int, *headers: tuple[str, str]) -> Route:
    """Fails the first `times` times, then serves the picture."""
    return lambda talk: talk.reply(status, b"", *headers) if talk.hits <= times else picture(talk)


def gzip_bomb(talk: Talk) -> None:
    talk.reply(200, gzip.compress(bytes(8 << 20)), ("Content-Encoding", "gzip"))


def endless(talk: Talk) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n")
    while not talk.closing.is_set():
        talk.send(bytes(65536))


def endless_header(talk: Talk) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not talk.closing.is_set():
        talk.send(b"a" * 65536)


def drip_body(talk: Talk) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    talk.drip(bytes(10000), 0.05)


def drip_header(talk: Talk) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    talk.drip(b"a" * 10000, 0.05)


def stalled_header(talk: Talk) -> None:
    talk.stall()


def stalled_body(talk: Talk) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\nabc")
    talk.stall()


def short_body(talk: Talk) -> None:
    talk.reply(200, PICTURE[:100], length=len(PICTURE))


def cut_chunks(talk: Talk) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")


def reset_at_once(talk: Talk) -> None:
    talk.reset()


def reset_in_body(talk: Talk) -> None:
    talk.reply(200, PICTURE[:100], length=len(PICTURE))
    talk.closing.wait(0.1)  # lets the client read the head first
    talk.reset()


def hang_up(talk: Talk) -> None:
    """Closes without a byte of response."""


def no_http(talk: Talk) -> None:
    talk.send(b"220 mail.example ESMTP\r\n")


METADATA = "http://169.254.169.254/latest/meta-data/"

ROUTES: dict[str, Route] = {
    "/picture.jpg": picture,
    "/html.jpg": lambda talk: talk.reply(200, b"<html>no picture", ("Content-Type", "image/jpeg")),
    "/203.jpg": lambda talk: talk.reply(203, PICTURE),
    "/moved": redirect("/picture.jpg", 301),
    "/moved-twice": redirect("/moved", 308),
    "/flapping": flapping(500, 1),
    "/busy": flapping(429, 1, ("Retry-After", "0")),
    "/lost-once": lambda talk: talk.reset() if talk.hits == 1 else picture(talk),
    "/gzipped": lambda talk: talk.reply(200, gzip.compress(PICTURE), ("Content-Encoding", "GZIP")),
    "/deflated": lambda talk: talk.reply(200, zlib.compress(PICTURE), ("Content-Encoding", "deflate")),
    "/odd-coding": lambda talk: talk.reply(200, PICTURE, ("Content-Encoding", "UTF-8")),
    "/500": flapping(500, 99),
    "/503": flapping(503, 99, ("Retry-After", "3600")),
    "/429": flapping(429, 99, ("Retry-After", "Fri, 31 Dec 2199 23:59:59 GMT")),
    "/403": lambda talk: talk.reply(403),
    "/204": lambda talk: talk.send(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "/206": lambda talk: talk.reply(206, PICTURE[:10]),
    "/304": lambda talk: talk.send(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "/loop": redirect("/loop"),
    "/nowhere": lambda talk: talk.reply(302),
    "/to-metadata": redirect(METADATA),
    "/to-ipv6": redirect("http://[::1]/"),
    "/to-private": redirect("//10.0.0.1/"),
    "/to-file": redirect("file:///etc/passwd"),
    "/to-other-port": redirect("http://127.0.0.1:22/"),
    "/to-number": redirect("http://2130706433/"),
    "/bomb": gzip_bomb,
    "/broken-gzip": lambda talk: talk.reply(200, gzip.compress(PICTURE)[:-9], ("Content-Encoding", "gzip")),
    "/no-gzip": lambda talk: talk.reply(200, PICTURE, ("Content-Encoding", "gzip")),
    "/brotli": lambda talk: talk.reply(200, PICTURE, ("Content-Encoding", "br")),
    "/two-codings": lambda talk: talk.reply(200, PICTURE, ("Content-Encoding", "gzip, gzip")),
    "/endless": endless,
    "/huge": lambda talk: talk.reply(200, b"", length=1 << 40),
    "/endless-header": endless_header,
    "/drip": drip_body,
    "/drip-header": drip_header,
    "/stalled-header": stalled_header,
    "/stalled-body": stalled_body,
    "/short": short_body,
    "/cut-chunks": cut_chunks,
    "/empty": lambda talk: talk.reply(200),
    "/empty-gzip": lambda talk: talk.reply(200, gzip.compress(b""), ("Content-Encoding", "gzip")),
    "/reset": reset_at_once,
    "/reset-in-body": reset_in_body,
    "/hang-up": hang_up,
    "/no-http": no_http,
}
