"""A file of which only parts are read, wherever it lies: a seekable view of a local, web or stored one."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import requests

from mmc4_builder import storage, transport
from mmc4_builder.http_stream import HttpStream
from mmc4_builder.transport import DEFAULT_RETRY, HTTP_SCHEMES, RetryPolicy

CHUNK = 1 << 20


class RangeFile(io.RawIOBase):
    """Bytes of one file by offset, each request counted. One request at a time, and one connection."""

    def __init__(self, path: str, *, retry: RetryPolicy, session: requests.Session) -> None:
        self.requests = 0
        self.bytes = 0
        self._path = path
        self._retry = retry
        self._session = session
        self._position = 0
        self._size: int | None = None
        self._held: list[tuple[int, bytes]] = []

    def fetch(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer where the file ends before. TransportError where they cannot be had.

        A server that ignores Range is refused (NoRange) before it sends more than its header.
        """
        self.requests += 1
        parts = []
        with self._open(offset, length) as stream:
            while length > 0 and (data := stream.read(min(length, CHUNK))):
                parts.append(data)
                length -= len(data)
        data = b"".join(parts)
        self.bytes += len(data)
        return data

    def _open(self, offset: int, length: int) -> transport.ByteStream:
        if transport.scheme(self._path) not in HTTP_SCHEMES:
            return transport.open_stream(self._path, offset=offset, retry=self._retry)
        return HttpStream(self._path, offset=offset, length=length, retry=self._retry, session=self._session)

    def hold(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch these (offset, length) and answer reads from them; what was held before is let go."""
        self._held = []
        self._held += [(offset, self.fetch(offset, length)) for offset, length in ranges]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        if self._size is None:
            self._size = self._measure()
        return self._size

    def _measure(self) -> int:
        if transport.scheme(self._path) not in HTTP_SCHEMES:
            found = storage.size(transport.local_path(self._path))
            if found is None:
                raise transport.NotFound(f"no such file: {self._path}")
            return found
        self.requests += 1
        with _Sized(self._path, length=1, retry=self._retry, session=self._session) as stream:
            return stream.size()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._position = offset + (0, self._position, self.size if whence == 2 else 0)[whence]
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        wanted = self.size - self._position
        wanted = max(0, wanted if size < 0 else min(size, wanted))
        data = self._from_held(self._position, wanted)
        if data is None:
            data = self.fetch(self._position, wanted) if wanted else b""
        self._position += len(data)
        return data

    def _from_held(self, offset: int, length: int) -> bytes | None:
        for start, data in self._held:
            if start <= offset and offset + length <= start + len(data):
                return data[offset - start : offset - start + length]
        return None

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Sized(HttpStream):
    """A download that tells how large the whole file is."""

    def size(self) -> int:
        if self._version is None or self._version.size is None:
            raise transport.TransportError(f"{self._url}: the server does not say how large the file is")
        return self._version.size


@contextmanager
def open_ranges(
    path: str, *, retry: RetryPolicy = DEFAULT_RETRY, session: requests.Session | None = None
) -> Iterator[RangeFile]:
    """The parts of one file; nothing is asked for before it is read. Pass `session` for many files of one server."""
    own = session or requests.Session()
    try:
        yield RangeFile(path, retry=retry, session=own)
    finally:
        if session is None:
            own.close()
