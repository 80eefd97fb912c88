"""A web on this machine to fetch from: nginx on many addresses, and a server that answers late. Linux only.

Every host is an address of 127.0.0.0/8, so that many hosts are asked and no name is looked up. nginx runs from a
temporary folder with one worker, and is a process of its own: its CPU is not the client's. TLS is 1.3 with ECDSA
P-256, and nginx resumes no session, so a new connection is always a full handshake.
"""

import asyncio
import datetime
import grp
import ipaddress
import multiprocessing
import os
import pwd
import random
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HOSTS = tuple(f"127.0.0.{number}" for number in range(1, 65))
ROBOTS = b"User-agent: *\nDisallow: /private/\n"
MEDIAN_SECONDS = 0.15  # of the late server
SIGMA = 1.0  # of the logarithm: the mean is 0.25 s, one answer in a hundred takes more than 1.5 s
STEPS = 4096

CONFIG = """
daemon off;
user {user} {group};
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; multi_accept on; }}
http {{
  access_log off;
  sendfile on; tcp_nopush on;
  types {{ image/jpeg jpg; text/plain txt; }}
  default_type application/octet-stream;
  root {folder}/www;
  keepalive_requests 1000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
  ssl_session_cache off; ssl_session_tickets off; ssl_protocols TLSv1.3;
  {servers}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """A running nginx. `ports` by mode: "http keep-alive", "http new connections", and the same with https."""

    ports: dict[str, int]
    ca_file: str  # the system's authorities and the one that signed for this web
    pictures: int
    forbidden: str  # a URL that robots.txt forbids

    def urls(self, mode: str, count: int, hosts: Sequence[str] = HOSTS) -> list[tuple[str, int]]:
        """(URL, number of its picture), every URL once, the hosts mixed."""
        base = f"{mode.split()[0]}://%s:{self.ports[mode]}/%06d.jpg?%d"
        numbers = ((index, index % self.pictures) for index in range(count))
        return [(base % (hosts[index % len(hosts)], picture, index), picture) for index, picture in numbers]


@contextmanager
def nginx(pictures: Sequence[bytes]) -> Iterator[Web]:
    """Serves these pictures until the block ends; exits with 2 where there is no nginx."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        print("nginx is not installed; apt-get install nginx-light, for one, brings it", file=sys.stderr)
        raise SystemExit(2)
    with tempfile.TemporaryDirectory(prefix="local-web-") as name:
        folder = Path(name)
        web = _prepare(folder, pictures)
        process = subprocess.Popen([program, "-p", name, "-c", f"{name}/nginx.conf"], stderr=subprocess.DEVNULL)
        try:
            log = folder / "error.log"
            _await(list(web.ports.values()), lambda: None if process.poll() is None else log.read_text())
            yield web
        finally:
            process.terminate()
            process.wait(10)


def _prepare(folder: Path, pictures: Sequence[bytes]) -> Web:
    """Files, certificates and configuration."""
    files = folder / "www"
    files.mkdir()
    (files / "robots.txt").write_bytes(ROBOTS)
    for number, data in enumerate(pictures):
        (files / f"{number:06d}.jpg").write_bytes(data)
    ca_file = _certify(folder)
    ports = dict(zip(("http keep-alive", "http new connections", "https keep-alive", "https new connections"),
                     free_ports(4), strict=True))  # fmt: skip
    user = pwd.getpwuid(os.getuid())
    servers = "\n".join(_server(mode, port) for mode, port in ports.items())
    config = CONFIG.format(folder=folder, user=user.pw_name, group=grp.getgrgid(user.pw_gid).gr_name, servers=servers)
    (folder / "nginx.conf").write_text(config)
    forbidden = f"http://{HOSTS[0]}:{ports['http keep-alive']}/private/a.jpg"
    return Web(ports=ports, ca_file=ca_file, pictures=len(pictures), forbidden=forbidden)


def _server(mode: str, port: int) -> str:
    tls = " ssl" if mode.startswith("https") else ""
    listen = " ".join(f"listen {host}:{port}{tls} backlog=4096;" for host in HOSTS)
    seconds = 65 if mode.endswith("keep-alive") else 0
    return f"server {{ {listen} keepalive_timeout {seconds}; }}"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def _await(ports: list[int], said: Callable[[], str | None]) -> None:
    """Until every port answers; `said` is what a server that has ended has said, None while it runs."""
    deadline = time.monotonic() + 10
    for port in ports:
        while True:
            try:
                socket.create_connection((HOSTS[-1], port), timeout=1).close()
                break
            except OSError:
                if (message := said()) is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the server does not start: {message}") from None
                time.sleep(0.02)


def _certify(folder: Path) -> str:
    """A certificate authority and a server certificate for all hosts; the bundle of trusted authorities."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    def sign(subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey) -> bytes:
        now = datetime.datetime.now(datetime.timezone.utc)
        names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in (subject, issuer)]
        hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host)) for host in HOSTS])
        is_authority = subject == issuer
        builder = (
            x509.CertificateBuilder(names[1], names[0], key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        )
        if not is_authority:
            builder = builder.add_extension(hosts, critical=False)
        return builder.sign(by, hashes.SHA256()).public_bytes(Encoding.PEM)

    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    own = sign("benchmark authority", authority, "benchmark authority", authority)
    (folder / "server.pem").write_bytes(sign("local web", server, "benchmark authority", authority))
    secret = server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.key").write_bytes(secret)
    bundle = folder / "authorities.pem"
    bundle.write_bytes(system_authorities() + b"\n" + own)
    return str(bundle)


def system_authorities() -> bytes:
    """The system's bundle of certificates, as every https client of this machine loads it."""
    paths = ssl.get_default_verify_paths()
    candidates = (paths.cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
    for candidate in candidates:
        if candidate and Path(candidate).is_file():
            return Path(candidate).read_bytes()
    raise SystemExit("this system has no bundle of certificate authorities: install ca-certificates")


LATENCIES = sorted(
    MEDIAN_SECONDS * random.Random(number).lognormvariate(0.0, SIGMA) for number in range(STEPS)
)  # a table and not a draw, so that a path is always as late and the mean is known


def latency(path: str) -> float:
    """Seconds until the late server answers this path."""
    return LATENCIES[zlib.crc32(path.encode()) % STEPS]


@contextmanager
def late_web(body: bytes) -> Iterator[int]:
    """A server that answers every path with this body after its latency; yields its port."""
    port = free_ports(1)[0]
    server = multiprocessing.get_context("fork").Process(target=_serve_late, args=(body, port), daemon=True)
    server.start()
    try:
        _await([port], lambda: None if server.is_alive() else "")
        yield port
    finally:
        server.terminate()
        server.join(10)


def _serve_late(body: bytes, port: int) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Late(body), list(HOSTS), port, backlog=4096)
        await server.serve_forever()

    asyncio.run(serve())


class _Late(asyncio.Protocol):
    """Answers one request after another, each late."""

    def __init__(self, body: bytes) -> None:
        self._answers = {b"/robots.txt": (b"200 OK", ROBOTS), b"/.well-known/tdmrep.json": (b"404 Not Found", b"-")}
        self._picture = (b"200 OK", body)
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            closing = b"connection: close" in head.lower()
            asyncio.get_running_loop().call_later(latency(path.decode()), self._answer, path, closing)

    def _answer(self, path: bytes, closing: bool) -> None:
        status, body = self._answers.get(path, self._picture)
        kind = b"image/jpeg" if body is self._picture[1] else b"text/plain"
        said = b"close" if closing else b"keep-alive"
        head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: %b\r\n\r\n"
        self._transport.write(head % (status, kind, len(body), said) + body)
        if closing:
            self._transport.close()
