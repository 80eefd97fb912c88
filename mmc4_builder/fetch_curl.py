"""The transport: many requests at once through libcurl, each bounded in bytes and time, and guarded at the socket.

No redirect is followed and nothing is decoded here: one request, one answer. All in one thread: transfers move
while `poll` is called, and only then.
"""

import logging
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import pycurl

from mmc4_builder import addresses
from mmc4_builder.fetch_rules import failure_reason, parse_head

T = TypeVar("T")
Judge = Callable[[T, int, Sequence[tuple[str, str]]], str | None]

MAX_HEADERS: Final = 128
MAX_HEADER_BYTES: Final = 65536  # of all headers of an answer; libcurl itself stops endless ones at 300 KB
MAX_WASTE: Final = 65536  # bytes of a body that nobody wants: reading it is cheaper than a new connection
_BUFFER: Final = 131072  # bytes that libcurl hands on at once
_IDLE_SECONDS: Final = 90  # that a connection is kept for the next request
_ASKS: Final = ("Accept: image/*, */*;q=0.1", "Accept-Encoding: identity")

_EVENTS: Final = (0, select.POLLIN, select.POLLOUT, select.POLLIN | select.POLLOUT)  # by libcurl's CURL_POLL_*

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What holds for every request."""

    user_agent: str
    connections: int  # that may be open, idle ones included
    connect_seconds: float
    grace_seconds: float  # below min_rate for so long: cut
    min_rate: float
    ca_file: str | None = None
    resolve: tuple[str, ...] = ()
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What came. With a reason, the body is what came until then."""

    status: int  # 0 where no headers came
    headers: Sequence[tuple[str, str]]  # lower-case names
    body: bytes
    reason: str | None  # None where the answer is whole, or its status alone says that the body is of no use
    seconds: float


class Transport(Generic[T]):
    """Requests under way, each with a ticket of the caller's that comes back with its answer.

    `judge` sees ticket, status and headers before anything of the body is taken, and may name a reason to stop there.
    """

    def __init__(self, limits: Limits, judge: Judge[T]) -> None:
        self.judge = judge
        self.limits = limits
        self.trust = find_trust(limits.ca_file)
        self._free: list[_Transfer[T]] = []
        self._busy: dict[Any, _Transfer[T]] = {}
        self._sockets = select.poll()  # and not epoll: a set this small costs nothing, and not only Linux has it
        self._timer: float | None = None  # when libcurl wants to be called though no socket is ready
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, limits.connections)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    def __len__(self) -> int:
        return len(self._busy)

    def start(self, url: str, ticket: T, *, seconds: float, max_bytes: int) -> None:
        """A GET of this URL, which addresses.check_url has let pass; over within so many seconds."""
        transfer = self._free.pop() if self._free else _Transfer(self)
        transfer.prepare(url, ticket, seconds, max_bytes)
        self._busy[transfer.curl] = transfer
        self._multi.add_handle(transfer.curl)

    def poll(self, seconds: float) -> list[tuple[T, Answer]]:
        """What has been answered; waits for it no longer than so many seconds."""
        if self._timer is not None:
            seconds = min(seconds, self._timer - time.monotonic())
        for descriptor, events in self._sockets.poll(max(0, ceil(seconds * 1000))):
            self._multi.socket_action(descriptor, _bits(events))
        if self._timer is not None and self._timer <= time.monotonic():
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        return self._finished()

    def close(self) -> None:
        """Drops what is under way."""
        for curl in self._busy:
            self._multi.remove_handle(curl)
        for transfer in (*self._busy.values(), *self._free):
            transfer.curl.close()
        self._busy.clear()
        self._free.clear()
        self._multi.close()

    def _finished(self) -> list[tuple[T, Answer]]:
        answers = []
        _, done, failed = self._multi.info_read()
        for curl, code, message in (*((curl, 0, "") for curl in done), *failed):
            self._multi.remove_handle(curl)
            transfer = self._busy.pop(curl)
            answers.append((transfer.ticket, transfer.answer(code, message)))
            transfer.forget()
            self._free.append(transfer)
        return answers

    def _watch(self, what: int, descriptor: int, multi: object, data: object) -> None:
        if what == pycurl.POLL_REMOVE:
            self._sockets.unregister(descriptor)
        else:
            self._sockets.register(descriptor, _EVENTS[what])

    def _set_timer(self, milliseconds: int) -> None:
        self._timer = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000


class _Transfer(Generic[T]):
    """One handle of libcurl, used again and again, and what its present request has brought."""

    def __init__(self, transport: Transport[T]) -> None:
        self._transport = transport
        self._allow_private = transport.limits.allow_private
        self.curl = pycurl.Curl()
        _configure(self.curl, transport.limits, transport.trust)
        self._head = BytesIO()
        self.curl.setopt(pycurl.HEADERFUNCTION, self._head.write)  # in C: there are ten calls for an answer
        self.curl.setopt(pycurl.WRITEFUNCTION, self._write)
        self.curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        self._seconds = 0.0

    def prepare(self, url: str, ticket: T, seconds: float, max_bytes: int) -> None:
        self.ticket = ticket
        self._room = max_bytes
        self._status = 0  # until the head is whole
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] | None = None  # None before there is any, and where nobody wants it
        self._stop: str | None = None  # why this side ended it; "" where the answer is good all the same
        self._refused = self._opened = False
        self._started = time.monotonic()
        self.curl.setopt(pycurl.URL, url)
        if seconds != self._seconds:
            self.curl.setopt(pycurl.TIMEOUT_MS, max(1, int(seconds * 1000)))
            self._seconds = seconds

    def forget(self) -> None:
        """Lets go of the request's memory while the handle waits for the next."""
        del self.ticket
        self._headers, self._body = [], None
        self._head.seek(0)
        self._head.truncate()

    def answer(self, code: int, message: str) -> Answer:
        if not self._status:
            self._read_head()
        pieces = self._body or ()
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        seconds = time.monotonic() - self._started
        return Answer(self._status, self._headers, body, self._reason(code, message), seconds)

    def _reason(self, code: int, message: str) -> str | None:
        if self._stop is not None:
            return self._stop or None
        if not self._status:
            if code == pycurl.E_COULDNT_CONNECT and self._refused and not self._opened:
                return "refused_address"
            return failure_reason(code, message, False) if code else "bad_response"
        return failure_reason(code, message, True) if code and self._body is not None else None

    def _read_head(self) -> None:
        """Judges the head, before the first piece of the body is taken, or at the end where there is none."""
        head = self._head.getvalue()
        self._status, self._headers = parse_head(head)
        if not self._status:
            return
        if head.count(b"\n") > MAX_HEADERS or len(head) > MAX_HEADER_BYTES:
            self._stop = "bad_response"
            return
        try:
            self._stop = self._transport.judge(self.ticket, self._status, self._headers)
        except Exception:
            _log.exception("judging an answer failed in an unforeseen way")
            self._stop = "internal_error"
        if 200 <= self._status < 300:
            self._body = []
        else:
            self._room = MAX_WASTE

    def _write(self, piece: bytes) -> int | None:
        if not self._status:
            self._read_head()
            if self._stop is not None:
                return self._end(self._stop)
        self._room -= len(piece)
        if self._room < 0:
            if self._body is not None:
                self._body.append(piece[: self._room])
            return self._end("" if self._body is None else "too_many_bytes")
        if self._body is not None:
            self._body.append(piece)
        return None

    def _end(self, reason: str) -> int:
        self._stop = reason
        return 0  # fewer bytes than were given: libcurl drops the connection

    def _open_socket(self, purpose: int, address: tuple[int, int, int, Any]) -> "_Descriptor | int":
        """The last gate: sees the very address that is connected to, however its name was looked up."""
        family, kind, protocol, where = address
        if addresses.refuse(str(where[0]), allow_private=self._allow_private):
            self._refused = True
            return int(pycurl.SOCKET_BAD)
        try:
            opened = _Descriptor(socket.socket(family, kind, protocol).detach())
        except OSError as error:
            _log.warning("no socket could be opened: %s", error)
            return int(pycurl.SOCKET_BAD)
        self._opened = True
        return opened


class _Descriptor:
    """An open socket on its way to pycurl, which copies the descriptor and drops this one.

    A socket object would do, but is slow to go: Python complains that nobody has closed it.
    """

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def __del__(self) -> None:
        os.close(self._number)


def _bits(events: int) -> int:
    """What poll has seen, in libcurl's words."""
    bits = pycurl.CSELECT_IN if events & select.POLLIN else 0
    bits |= pycurl.CSELECT_OUT if events & select.POLLOUT else 0
    return int(bits | pycurl.CSELECT_ERR if events & ~(select.POLLIN | select.POLLOUT) else bits)


def _configure(curl: Any, limits: Limits, trust: tuple[int, str] | None) -> None:
    """Everything that is the same for all requests."""
    options: dict[int, object] = {
        pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
        pycurl.FOLLOWLOCATION: 0,
        pycurl.PATH_AS_IS: 1,
        pycurl.PROXY: "",  # a proxy would resolve names itself, past the guard
        pycurl.NOPROXY: "*",
        pycurl.HTTP09_ALLOWED: 0,
        pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_2TLS,
        pycurl.HTTPHEADER: list(_ASKS),
        pycurl.USERAGENT: limits.user_agent,
        pycurl.CONNECTTIMEOUT_MS: max(1, int(limits.connect_seconds * 1000)),
        pycurl.LOW_SPEED_LIMIT: max(1, int(limits.min_rate)),
        pycurl.LOW_SPEED_TIME: max(1, round(limits.grace_seconds)),
        pycurl.DNS_CACHE_TIMEOUT: 300,
        pycurl.MAXAGE_CONN: _IDLE_SECONDS,
        pycurl.BUFFERSIZE: _BUFFER,
        pycurl.NOSIGNAL: 1,
        pycurl.SSL_VERIFYPEER: 1,
        pycurl.SSL_VERIFYHOST: 2,
    }
    for option, value in options.items():
        curl.setopt(option, value)
    if limits.resolve:
        curl.setopt(pycurl.RESOLVE, list(limits.resolve))
    if trust:  # libcurl parses a file once for all handles, but only where no folder is set
        curl.unsetopt(pycurl.CAPATH)
        curl.setopt(*trust)


def find_trust(ca_file: str | None) -> tuple[int, str] | None:
    """Option and path of the certificates to trust; None leaves it to libcurl. ValueError for a bad `ca_file`."""
    if ca_file is not None:
        try:
            ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            raise ValueError(f"ca_file must be a readable PEM file, not {ca_file!r}: {error}") from error
        return pycurl.CAINFO, ca_file
    system = ssl.get_default_verify_paths()
    if system.cafile:
        return pycurl.CAINFO, system.cafile
    if find_spec("certifi"):
        import certifi

        return pycurl.CAINFO, certifi.where()
    if system.capath and Path(system.capath).is_dir():
        return pycurl.CAPATH, system.capath
    return None
