"""Where records begin and end in a WARC file, found again after damage.

In a gzipped WARC file every record is one gzip member. That frame is the truth: it is checked by its own sum,
while a record's Content-Length may lie.
"""

import re
import zlib
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from mmc4_builder.transport import ByteStream

CHUNK = 64 << 10
HEAD = 64 << 10  # bytes of a record kept to look at its header
TAIL = 16
GZIP = b"\x1f\x8b\x08"
MAX_INFLATED = 4 << 30  # bytes a member may unpack to while it is passed by

_HEADER_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"\nContent-Length:[ \t]*([0-9]{1,18})[ \t]*\r?\n", re.IGNORECASE)
_RECORD = re.compile(rb"WARC/[0-9]\.[0-9]")


class Window:
    """A stream that can be put back to any byte since the last `release`, within about `limit` bytes.

    What was read is kept as it came, in pieces: copying it would cost a tenth of the reading.
    """

    def __init__(self, stream: ByteStream, limit: int) -> None:
        self.failure: OSError | None = None  # of the stream itself, as opposed to what its bytes say
        self._stream = stream
        self._limit = limit
        self._kept: deque[bytes] = deque()
        self._base = self._end = self._position = stream.tell()

    def read(self, size: int = -1, /) -> bytes:
        """At most CHUNK bytes, none only at the end of the stream."""
        size = CHUNK if size < 0 else min(size, CHUNK)
        data = self._fetch(size) if self._position == self._end else self._again(size)
        self._position += len(data)
        return data

    def _fetch(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except OSError as error:
            self.failure = error
            raise
        if data:
            self._kept.append(data)
            self._end += len(data)
            self.release(self._end - self._limit)
        return data

    def _again(self, size: int) -> bytes:
        start = self._base
        for piece in self._kept:
            if self._position < start + len(piece):
                return piece[self._position - start :][:size]
            start += len(piece)
        return b""

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        """The stream belongs to the caller."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Stand at `offset`: back to a byte still kept (else to the first that is), or forward by reading."""
        self._position = max(self._base, min(offset, self._end))
        while self._position < offset and self.read(offset - self._position):
            pass
        return self._position

    def release(self, offset: int) -> None:
        """Bytes before `offset` will not be wanted again."""
        while self._kept and self._base + len(self._kept[0]) <= offset:
            self._base += len(self._kept.popleft())

    def peek(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`, fewer only at the end of the stream."""
        self.seek(offset)
        data = b""
        while len(data) < size and (more := self.read(size - len(data))):
            data += more
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What lies at an offset. `fault` is the reason why it is no sound frame; then `end` says nothing."""

    end: int = 0  # offset of the first byte behind it
    size: int = 0  # bytes unpacked
    head: bytes = b""
    tail: bytes = b""
    fault: str = ""

    @property
    def blank(self) -> bool:
        return not self.fault and self.size < HEAD and not self.head.strip()

    @property
    def is_record(self) -> bool:
        return _RECORD.match(self.head) is not None

    def holds_one_record(self) -> bool:
        """Whether the record's own Content-Length fits its frame, a few line ends aside."""
        header, length = _HEADER_END.search(self.head), declared_length(self.head)
        if not header or length is None:
            return False
        rest = self.size - header.end() - length
        return 0 <= rest <= len(self.tail) and not self.tail[len(self.tail) - rest :].strip()


def declared_length(head: bytes) -> int | None:
    """Content-Length of the WARC header that starts `head`; None where it is missing or no number."""
    end = _HEADER_END.search(head)
    found = _LENGTH.search(head, 0, end.end() if end else len(head))
    return int(found[1]) if found else None


class Frames(Protocol):
    """How a kind of file is framed. `torn`: why a record seems to go on to the end of a file that goes on."""

    torn: str

    def measure(self, offset: int) -> Member: ...
    def find_next(self, offset: int) -> int | None:
        """Offset of the first record at or behind `offset`, or None."""
        ...


class GzipFrames:
    """One gzip member a record."""

    torn = "corrupt_gzip"

    def __init__(self, window: Window) -> None:
        self._window = window

    def measure(self, offset: int) -> Member:
        """Faults: garbage, truncated_file, corrupt_gzip, member_too_large."""
        if self._window.seek(offset) != offset:
            return Member(fault="corrupt_gzip")  # too far back to look at again
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        head, tail, size = bytearray(), b"", 0
        magic = self._window.peek(offset, len(GZIP))
        self._window.seek(offset)
        data = self._window.read()
        try:
            while data and not inflate.eof:
                piece = inflate.decompress(data, CHUNK)
                head += piece[: HEAD - len(head)] if len(head) < HEAD else b""
                tail = (tail + piece)[-TAIL:]
                size += len(piece)
                if size > MAX_INFLATED:
                    return Member(fault="member_too_large")
                data = inflate.unconsumed_tail or (b"" if inflate.eof else self._window.read())
        except zlib.error:
            return Member(fault="corrupt_gzip" if magic == GZIP else "garbage")
        if not inflate.eof:
            return Member(fault="truncated_file" if GZIP.startswith(magic) else "garbage")
        end = self._window.tell() - len(inflate.unused_data)
        return Member(end=end, size=size, head=bytes(head), tail=tail)

    def find_next(self, offset: int) -> int | None:
        offset, carry = self._window.seek(offset), b""
        while data := self._window.read():
            seen = carry + data
            at = seen.find(GZIP)
            while at >= 0:
                if self._starts_record(offset + at):
                    return offset + at
                at = seen.find(GZIP, at + 1)
            carry = seen[-(len(GZIP) - 1) :]
            offset += len(seen) - len(carry)
            self._window.seek(offset + len(carry))
            self._window.release(offset)
        return None

    def _starts_record(self, offset: int) -> bool:
        try:
            start = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(self._window.peek(offset, 4096), 16)
        except zlib.error:
            return False
        return _RECORD.match(start) is not None


class PlainFrames:
    """No compression: only the Content-Length of each record, and what stands behind it."""

    torn = "bad_content_length"

    def __init__(self, window: Window) -> None:
        self._window = window

    def measure(self, offset: int) -> Member:
        """Faults: garbage, truncated_file, bad_content_length, corrupt_record."""
        if self._window.seek(offset) != offset:
            return Member(fault="corrupt_record")
        head = b""
        while len(head) < HEAD and not _HEADER_END.search(head) and (data := self._window.read()):
            head += data
        header, length = _HEADER_END.search(head), declared_length(head)
        if not _RECORD.match(head):
            return Member(fault="garbage")
        if not header or length is None:
            return Member(fault="bad_content_length" if header else "corrupt_record")
        body_end = offset + header.end() + length
        if self._window.seek(body_end) < body_end:
            return Member(fault="truncated_file")
        tail = self._window.peek(body_end, TAIL)
        rest = tail.lstrip(b"\r\n")
        if rest and not rest.startswith(b"WARC/"[: len(rest)]):
            return Member(fault="bad_content_length")
        end = body_end + len(tail) - len(rest)
        return Member(end=end, size=end - offset, head=head[:HEAD], tail=tail[: len(tail) - len(rest)])

    def find_next(self, offset: int) -> int | None:
        offset, carry = self._window.seek(offset), b""
        while data := self._window.read():
            seen = carry + data
            if found := re.search(rb"(?<=\n)WARC/[0-9]\.[0-9]\r?\n", seen):
                return offset + found.start()
            carry = seen[-11:]
            offset += len(seen) - len(carry)
            self._window.release(offset)
        return None
