"""Fetch many URLs from the live web, safely: bounded in time, bytes, redirects and addresses.

The bytes are handed on as they came; what they show is for the images module to find out. One failed URL is
one result with a reason, never an exception and never a stall of the others.
"""

import asyncio
import logging
import re
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from email.utils import parsedate_to_datetime
from queue import SimpleQueue
from typing import Final
from weakref import WeakValueDictionary

import aiohttp
from yarl import URL

from mmc4_builder import __version__, addresses

ROBOTS_TOKEN: Final = "mmc-build"  # the name that robots.txt rules may use: RFC 9309 allows no digit in it
KEPT_HEADERS: Final = frozenset(
    ("content-encoding", "content-type", "content-usage", "date", "etag", "last-modified")
    + ("tdm-policy", "tdm-reservation", "x-robots-tag")
)
MAX_KEPT_HEADERS: Final = 32
_ASKS: Final = {"Accept": "image/*, */*;q=0.1", "Accept-Encoding": "identity"}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_WHOLE: Final = frozenset({200, 203})  # statuses whose body is the whole picture; 206 was not asked for
_ZLIB_CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
_OTHER_CODINGS: Final = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})
_CONTACT = re.compile(r"(?:https?://|mailto:)[!-'*-:<-~]+")  # printable, and nothing that ends a comment
_MAY_BE_ZERO: Final = frozenset(
    {"max_redirects", "retries", "retry_seconds", "max_retry_after", "grace_seconds", "allow_private"}
)

Headers = tuple[tuple[str, str], ...]
RefuseHeaders = Callable[[Headers], str | None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What became of one URL. `data` is set exactly when `reason` is None."""

    url: str  # as asked for
    data: bytes | None
    reason: str | None  # snake_case counter name, None for success
    status: int  # of the last response, 0 where none came
    final_url: str  # the last one requested, after redirects
    headers: Headers  # of the last response: lower-case names, only KEPT_HEADERS, repeated fields kept apart
    seconds: float  # spent on the network, retries and redirects included, waits for a turn not


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchConfig:
    """How to fetch. Bodies take about max_ready_bytes + concurrency * max_bytes of memory at most."""

    contact: str  # URL of a page (or mailto:) where site owners reach whoever runs this crawl
    concurrency: int = 64  # requests under way
    per_host: int = 2  # of them to one host name
    window: int = 1024  # URLs taken from the caller and not yet given back
    max_ready_bytes: int = 128 << 20  # of results that wait for the caller; no request starts above it
    max_bytes: int = 10 << 20  # of one body, on the wire and decoded
    max_redirects: int = 5
    connect_seconds: float = 10.0  # DNS, TCP and TLS
    read_seconds: float = 10.0  # between two reads
    total_seconds: float = 30.0  # for one URL, redirects and retries included
    grace_seconds: float = 5.0  # of one body before min_rate holds
    min_rate: float = 2048.0  # bytes a second, mean over the body
    retries: int = 1  # after a lost connection, 429 or 5xx
    retry_seconds: float = 0.5  # before a retry where the server names no time
    max_retry_after: float = 10.0  # a server that asks for more is not asked again
    ports: tuple[int, ...] = (80, 443)
    ca_file: str | None = None  # PEM; None: the system's certificates
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


def fetch_all(
    urls: Iterable[str], config: FetchConfig, *, refuse_headers: RefuseHeaders | None = None
) -> Iterator[Fetched]:
    """One result for each URL, in order of completion; sort where order matters.

    `urls` is read lazily in the caller's thread, `config.window` ahead at most: mix the hosts, for a long run
    of one host fills the window. `refuse_headers` sees the headers of a good response before its body is read
    (opt-outs) and may name a reason to stop there. Transfers go on while the caller works on a result.
    """
    with _Client(config, refuse_headers) as client:
        waiting = 0
        for url in urls:
            client.submit(url)
            waiting += 1
            while waiting >= config.window or client.ready():
                yield client.take()
                waiting -= 1
        for _ in range(waiting):
            yield client.take()


class _Failure(Exception):
    """Ends one request. `wait` is how long to wait before another try is worth it, None for never."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait


@dataclass(slots=True)
class _Visit:
    """How far one URL has come, over its redirects and retries."""

    retries: int
    url: URL | None = None
    status: int = 0
    headers: Headers = ()
    seconds: float = 0.0


_REASONS: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...]] = (
    ((aiohttp.ClientSSLError, ssl.SSLError), "tls_failed"),
    (aiohttp.ClientConnectorDNSError, "dns_failure"),
    ((asyncio.TimeoutError, TimeoutError), "timeout"),  # two types before Python 3.11
    (aiohttp.ClientConnectorError, "connect_failed"),
    (aiohttp.ClientPayloadError, "truncated_body"),
    (aiohttp.ClientResponseError, "bad_response"),
    ((aiohttp.ClientConnectionError, ConnectionError), "connection_reset"),
    ((aiohttp.InvalidURL, UnicodeError), "invalid_url"),  # UnicodeError: names that no codec takes
)


def failure_reason(error: BaseException) -> str:
    """The reason behind an error of the client."""
    if isinstance(getattr(error, "os_error", None), addresses.RefusedAddressError):
        return "refused_address"
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "fetch_failed")


def retry_wait(retry_after: str | None, config: FetchConfig, now: float) -> float | None:
    """Seconds to wait before asking again, None where the server asks for too many (RFC 9110 §10.2.3)."""
    if not retry_after:
        return config.retry_seconds
    text = retry_after.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        seconds = float(text)
    else:
        try:
            seconds = max(0.0, parsedate_to_datetime(text).timestamp() - now)
        except (ValueError, OverflowError):  # neither of its two forms
            return config.retry_seconds
    return seconds if seconds <= config.max_retry_after else None


def decode_body(data: bytes, coding: str, max_bytes: int) -> bytes:
    """Undoes a content coding sent although only identity was asked for; _Failure for bombs and debris.

    Names that are no coding at all ("none", "UTF-8", "binary" are seen) are taken for identity.
    """
    if coding not in _ZLIB_CODINGS:
        return data
    inflate = zlib.decompressobj(wbits=47)  # zlib or gzip, told apart by their headers
    try:
        plain = inflate.decompress(data, max_bytes + 1)
    except zlib.error:
        raise _Failure("content_encoding") from None
    if len(plain) > max_bytes or not inflate.eof or inflate.unused_data:
        raise _Failure("content_encoding")
    return plain


def kept_headers(headers: Mapping[str, str]) -> Headers:
    """The headers worth keeping, as text that any encoder takes (raw bytes arrive as lone surrogates)."""
    kept = [(name.lower(), value) for name, value in headers.items() if name.lower() in KEPT_HEADERS]
    return tuple(
        (name, value.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        for name, value in kept[:MAX_KEPT_HEADERS]
    )


def _trust(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ValueError(f"ca_file must be a readable PEM file, not {ca_file!r}: {error}") from error


class _Client:
    """The HTTP client, its event loop in a thread of its own; all coroutines here run there."""

    def __init__(self, config: FetchConfig, refuse_headers: RefuseHeaders | None) -> None:
        self._config = config
        self._refuse_headers = refuse_headers
        self._done: SimpleQueue[Future[Fetched]] = SimpleQueue()
        self._hosts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._ready_bytes = 0
        self._tls = _trust(config.ca_file)  # one for all: loading the certificates costs 35 ms

    def __enter__(self) -> "_Client":
        self._loop = asyncio.new_event_loop()
        # Names are looked up by blocking calls, and one that timed out here still blocks its thread a while.
        self._threads = ThreadPoolExecutor(4 * self._config.concurrency, thread_name_prefix="dns")
        self._loop.set_default_executor(self._threads)
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetch", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._threads.shutdown(wait=False, cancel_futures=True)  # a hanging look-up must not hold the caller
        self._loop.close()

    def submit(self, url: str) -> None:
        asyncio.run_coroutine_threadsafe(self._fetch(url), self._loop).add_done_callback(self._done.put)

    def ready(self) -> bool:
        return not self._done.empty()

    def take(self) -> Fetched:
        fetched = self._done.get().result()
        self._loop.call_soon_threadsafe(self._count_ready, -len(fetched.data or b""))
        return fetched

    async def _open(self) -> None:
        config = self._config
        self._slots = asyncio.Semaphore(config.concurrency)
        self._room = asyncio.Event()
        self._room.set()
        self._session = aiohttp.ClientSession(
            connector=addresses.guarded_connector(self._tls, allow_private=config.allow_private),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": config.user_agent} | _ASKS,
            auto_decompress=False,  # decode_body has a limit, the client has none
            middlewares=(self._only_once,),
            trust_env=False,  # a proxy would resolve names itself, past the guard
            max_field_size=16384,  # bytes of one header field; the client stops at 128 fields
        )

    async def _close(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    def _count_ready(self, size: int) -> None:
        self._ready_bytes += size
        if self._ready_bytes < self._config.max_ready_bytes:
            self._room.set()
        else:
            self._room.clear()

    async def _fetch(self, url: str) -> Fetched:
        """Ends in a result for any input: one bad record must not stop a work unit."""
        visit = _Visit(retries=self._config.retries)
        data, reason = None, None
        try:
            data = await self._follow(url, visit)
        except _Failure as failure:
            reason = failure.reason
        except Exception:  # a fault of ours or of the client: counted under its own name, and told
            _log.exception("fetching %.200r failed in an unforeseen way", url)
            reason = "internal_error"
        self._count_ready(len(data or b""))
        return Fetched(
            url=url,
            data=data,
            reason=reason,
            status=visit.status,
            final_url=url if visit.url is None else str(visit.url),
            headers=visit.headers,
            seconds=visit.seconds,
        )

    async def _follow(self, url: str, visit: _Visit) -> bytes:
        if reason := addresses.check_url(url, self._config.ports, allow_private=self._config.allow_private):
            raise _Failure(reason)
        target = addresses.parse_url(url)
        for _ in range(self._config.max_redirects + 1):
            answer = await self._persist(target, visit)
            if isinstance(answer, bytes):
                return answer
            target = answer
        raise _Failure("too_many_redirects")

    async def _persist(self, target: URL, visit: _Visit) -> bytes | URL:
        """One request, again while it fails in a way that may pass. Waits with no slot held."""
        while True:
            try:
                return await self._request(target, visit)
            except _Failure as failure:
                if failure.wait is None or visit.retries <= 0:
                    raise
                visit.retries -= 1
                wait = failure.wait
            await asyncio.sleep(wait)

    async def _request(self, target: URL, visit: _Visit) -> bytes | URL:
        host = (target.raw_host or "").rstrip(".").lower()
        turn = self._hosts.setdefault(host, asyncio.Semaphore(self._config.per_host))
        async with turn, self._slots:
            await self._room.wait()
            visit.url, visit.status, visit.headers = target, 0, ()
            started = time.monotonic()
            try:
                async with self._session.get(
                    target, allow_redirects=False, timeout=self._deadlines(visit), server_hostname=host
                ) as response:
                    return await self._answer(response, visit)
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError, UnicodeError) as error:
                raise self._failure(error) from error
            finally:
                visit.seconds += time.monotonic() - started

    def _failure(self, error: BaseException) -> _Failure:
        reason = failure_reason(error)
        lost = reason in ("connection_reset", "truncated_body")
        return _Failure(reason, self._config.retry_seconds if lost else None)

    async def _only_once(
        self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """A middleware that hides lost connections from the client, which else asks again, uncounted."""
        try:
            return await send(request)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise self._failure(error) from error

    def _deadlines(self, visit: _Visit) -> aiohttp.ClientTimeout:
        left = self._config.total_seconds - visit.seconds
        if left <= 0:
            raise _Failure("timeout")
        return aiohttp.ClientTimeout(
            total=left, connect=self._config.connect_seconds, sock_read=self._config.read_seconds
        )

    async def _answer(self, response: aiohttp.ClientResponse, visit: _Visit) -> bytes | URL:
        """The body, or where the redirect leads. Leaving early drops the connection, and the body with it."""
        status = visit.status = response.status
        visit.headers = kept_headers(response.headers)
        if status in _REDIRECTS:
            location, private = response.headers.get("Location"), self._config.allow_private
            target = addresses.follow(response.url, location, self._config.ports, allow_private=private)
            if isinstance(target, str):
                raise _Failure(target)
            return target
        if status not in _WHOLE:
            may_pass = status == 429 or status >= 500
            wait = retry_wait(response.headers.get("Retry-After"), self._config, time.time())
            raise _Failure(f"http_{status}", wait if may_pass else None)
        if self._refuse_headers and (reason := self._refuse_headers(visit.headers)):
            raise _Failure(reason)
        return await self._body(response)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        limit = self._config.max_bytes
        coding = ",".join(response.headers.getall("Content-Encoding", ())).strip().lower()
        if coding in _OTHER_CODINGS or "," in coding:
            raise _Failure("content_encoding")
        if (response.content_length or 0) > limit:
            raise _Failure("too_many_bytes")
        body = bytearray()
        started = time.monotonic()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > limit:
                raise _Failure("too_many_bytes")
            elapsed = time.monotonic() - started
            if elapsed > self._config.grace_seconds and len(body) < self._config.min_rate * elapsed:
                raise _Failure("too_slow")
        data = decode_body(bytes(body), coding, limit)
        if not data:
            raise _Failure("empty")
        return data
