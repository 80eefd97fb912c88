"""A download that goes on after a broken connection, and never mixes two versions of a file."""

import io
import random
from typing import Protocol

import requests
from urllib3.exceptions import HTTPError

from mmc4_builder.http_rules import (
    DEFAULT_RETRY,
    Changed,
    NoRange,
    RetryPolicy,
    TransportError,
    Unreachable,
    Version,
    describe,
    refusal,
    retry_after,
    user_agent,
    wants_retry,
)

PROGRESS = 64 << 10  # after so many bytes, a break counts as the first failure again
SKIP_CHUNK = 1 << 20


class _Raw(Protocol):
    def read(self, amt: int, decode_content: bool) -> bytes: ...


class HttpStream(io.RawIOBase):
    """The bytes of one URL from `offset` on, or `length` of them; `tell()` counts from the file's start."""

    def __init__(
        self,
        url: str,
        *,
        offset: int = 0,
        length: int | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        session: requests.Session | None = None,
    ) -> None:
        self._url = url
        self._position = offset
        self._end = None if length is None else offset + length
        self._retry = retry
        self._session = session or requests.Session()
        self._owns_session = session is None
        self._jitter = random.Random(f"{retry.seed} {url}")
        self._version: Version | None = None
        self._response: requests.Response | None = None
        self._failures = 0
        self._gained = 0
        if self._end != offset:
            self._connect()  # so that a missing file is noticed here

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._drop()
        if self._owns_session:
            self._session.close()
        super().close()

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(SKIP_CHUNK), b""))
        while size and not self._complete():
            raw = self._connect()
            try:
                data = raw.read(size, decode_content=False)
            except (HTTPError, OSError) as error:
                self._broken(error)
                continue
            if data:
                return self._gain(data)
            if self._expected() is None:
                break  # neither length nor chunks: the server's closing is the end
            self._broken(f"connection closed at byte {self._position} of {self._expected()}")
        return b""

    def _gain(self, data: bytes) -> bytes:
        if self._end is not None:
            data = data[: self._end - self._position]
        self._position += len(data)
        self._gained += len(data)
        return data

    def _expected(self) -> int | None:
        size = self._version.size if self._version else None
        return self._end if size is None else size if self._end is None else min(size, self._end)

    def _complete(self) -> bool:
        expected = self._expected()
        return expected is not None and self._position >= expected

    def _drop(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _broken(self, why: object) -> None:
        """The body broke off: go on from the last byte. Real progress earns a fresh set of tries."""
        if self._gained >= PROGRESS:
            self._failures = 0
        self._gained = 0
        self._failed(why)

    def _failed(self, why: object, asked_wait: float = 0.0) -> None:
        """Count a failure and wait, at least as long as the server asks."""
        self._drop()
        policy = self._retry
        self._failures += 1
        if self._failures >= policy.tries:
            raise Unreachable(f"gave up on {self._url} after {policy.tries} tries: {why}")
        if asked_wait > policy.max_retry_after:
            raise Unreachable(f"{self._url} wants a wait of {asked_wait:.0f} s ({why}); try again later")
        backoff = min(policy.max_wait, policy.first_wait * 2.0 ** (self._failures - 1))
        policy.sleep(max(backoff, asked_wait) * (1 + self._jitter.random() / 2))

    def _connect(self) -> _Raw:
        """The body of an answer that stands at our byte; the open one, or a new one."""
        while self._response is None:
            try:
                response = self._ask()
            except (requests.ConnectionError, requests.Timeout) as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise TransportError(f"cannot trust the certificate of {self._url}: {error}") from error
                self._failed(error)
                continue
            except requests.RequestException as error:
                raise TransportError(f"cannot ask for {self._url}: {error}") from error
            self._response = response
            if wants_retry(response.status_code):
                self._failed(f"answer {response.status_code} {response.reason}", retry_after(response))
                continue
            self._accept(response)
        raw: _Raw = self._response.raw
        return raw

    def _ask(self) -> requests.Response:
        headers = {
            "User-Agent": user_agent(self._retry.contact),
            "Accept-Encoding": "identity",
            "Accept": "*/*",
        }
        if self._position or self._end is not None:
            last = "" if self._end is None else self._end - 1
            headers["Range"] = f"bytes={self._position}-{last}"
        timeout = (self._retry.connect_timeout, self._retry.read_timeout)
        return self._session.get(self._url, headers=headers, stream=True, timeout=timeout)

    def _accept(self, response: requests.Response) -> None:
        """Take a final answer: remember or check the file's version, and stand at the right byte."""
        if response.status_code not in (200, 206, 416):
            self._drop()
            raise refusal(self._url, response)
        start, version_now = describe(response)
        difference = self._version.differs(version_now) if self._version else ""
        if difference:
            self._drop()
            raise Changed(f"{self._url} changed while it was read: {difference}; start it again")
        self._version = self._version or version_now
        if response.status_code == 416:
            self._end = self._position  # nothing lies behind the end of the file
        elif response.status_code == 200 and self._end is not None:
            self._drop()
            raise NoRange(f"{self._url}: the server ignores Range; copy the file to where parts can be read")
        elif response.status_code == 200:
            self._skip(response, self._position)
        elif start != self._position:
            self._drop()
            raise TransportError(f"{self._url}: asked for byte {self._position}, the server sent from {start}")

    def _skip(self, response: requests.Response, count: int) -> None:
        """A server without Range starts over: pass by what was read already."""
        raw: _Raw = response.raw
        while count:
            try:
                data = raw.read(min(count, SKIP_CHUNK), decode_content=False)
            except (HTTPError, OSError) as error:
                return self._failed(error)
            if not data:
                return self._failed("connection closed early")
            count -= len(data)
