"""A seekable stream over an object that is read by ranges: one request a picture, few for a file read through."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FIRST = 16 << 10  # bytes of the smallest request: the head of a tar's member comes with what follows it
TAIL = 64 << 10  # where Parquet files and zips have their tables of contents
MOST = 8 << 20  # that are read ahead of somebody who reads on and on


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of an object."""

    data: bytes
    whole: int  # bytes of the object
    version: str  # of the object; every version has another


Get = Callable[[str, str, str], Part]  # of path, HTTP range (or ""), and version (or "")


class ObjectReader(io.RawIOBase):
    """Reads an object. Random reads fetch what is asked for; the further somebody reads on, the more at a time."""

    def __init__(self, path: str, get: Get) -> None:
        self.name = path
        self._get = get
        self._position = 0
        self._size: int | None = None
        self._version = ""
        self._held = b""  # the bytes that were fetched last
        self._start = 0  # of what is held
        self._window = FIRST

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = max(0, offset + (0, self._position, self._end if whence == io.SEEK_END else 0)[whence])
        return self._position

    @property
    def _end(self) -> int:
        """Bytes of the object. Who asks reads its end next, so that comes with the answer."""
        if self._size is None:
            part = self._ask(f"bytes=-{TAIL}")
            self._held, self._start = part.data, part.whole - len(part.data)
        return self._size or 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Exactly `size` bytes unless the object ends before."""
        self._checkClosed()
        wanted = size if size is not None and size >= 0 else max(0, self._end - self._position)
        data = self._from_held(wanted)
        if (missing := wanted - len(data)) and (self._size is None or self._position + len(data) < self._size):
            self._fetch(self._position + len(data), missing)
            data += self._from_held(missing, at=self._position + len(data))
        self._position += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def peek(self, size: int = 1, /) -> bytes:
        """What comes next, without moving: `readline` goes by it."""
        if not self._from_held(1):
            here = self._position
            self.read(FIRST)
            self._position = here
        return self._from_held(FIRST)

    def _from_held(self, size: int, at: int | None = None) -> bytes:
        start = (self._position if at is None else at) - self._start
        return self._held[start : start + size] if start >= 0 else b""

    def _fetch(self, start: int, length: int) -> None:
        held_until = self._start + len(self._held)
        reads_on = held_until <= start <= held_until + self._window and (self._held or start == 0)
        self._window = min(2 * self._window, MOST) if reads_on else FIRST
        part = self._ask(f"bytes={start}-{start + max(length, self._window) - 1}")
        self._held, self._start = part.data, start

    def _ask(self, span: str) -> Part:
        part = self._get(self.name, span, self._version)
        self._size, self._version = part.whole, part.version
        return part
