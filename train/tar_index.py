"""Where the samples of a tar lie: found once by its headers alone, kept as two numbers a sample, read by offset.

A sample is a run of members that share a key, the name up to the first dot of its last part, as WebDataset has it.
Python's tarfile takes three to four times as long for a header, and corpora have hundreds of millions.
"""

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = 512
MAX_MEMBER_BYTES = 64 << 20
MAX_SAMPLE_BYTES = 256 << 20
MAX_EXTENDED_BYTES = 1 << 20  # of a long name or a PAX header
OPEN_FILES = 64
_WINDOW = 4096  # small members and PAX headers come with the header before them
_END = bytes(BLOCK)
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)")
_PAX = re.compile(rb"(\d+) ([^=\n]+)=")
_FILES = b"0\0" + b"7"  # types: plain, plain of old tars, contiguous

Read = Callable[[int, int], bytes]
"""Bytes from an offset, at most so many."""


class TarDamage(Exception):
    """The tar cannot be read from here on."""


@dataclass(frozen=True, slots=True)
class Member:
    """A plain file: its name, where its first header is, where its data is, and their bytes."""

    name: str
    start: int
    data: int
    size: int

    @property
    def stop(self) -> int:
        return self.data + _padded(self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The samples of one tar as (start, stop) of their bytes, and why it ended early, if it did."""

    spans: list[tuple[int, int]]
    damage: str = ""


def split_name(name: str) -> tuple[str, str] | None:
    """(key, extension) of a member; None for what belongs to no sample, as files without a dot or hidden ones."""
    found = _NAME.fullmatch(name)
    return (found[1], found[2].lower()) if found else None


def index_tar(path: Path) -> Found:
    """All samples up to the end mark, or up to the first damage: a cut header, a wrong checksum, cut data."""
    spans: list[tuple[int, int]] = []
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as error:
        return Found(spans=spans, damage=str(error))
    last = None
    try:
        size = os.fstat(fd).st_size
        for member in members(_windowed(fd), size):
            named = split_name(member.name)
            key = named[0] if named else None
            if key is not None and key == last:
                spans[-1] = (spans[-1][0], member.stop)
            elif key is not None:
                spans.append((member.start, member.stop))
            last = key
    except (TarDamage, OSError) as error:
        return Found(spans=spans, damage=str(error))
    finally:
        os.close(fd)
    return Found(spans=spans)


def members(read: Read, size: int, *, whole: bool = True) -> Iterator[Member]:
    """The plain files of a tar of `size` bytes; TarDamage where it ends without its end mark, unless not `whole`."""
    at = 0
    while whole or at < size:
        start, name, override = at, "", -1
        while True:
            header = read(at, BLOCK)
            if len(header) < BLOCK:
                raise TarDamage(f"ends at byte {at + len(header)} without an end mark")
            if not header[0] and header == _END:
                return
            kind, length = header[156:157], _size(header, at)
            if kind not in b"xgLK":
                break
            if length > MAX_EXTENDED_BYTES:
                raise TarDamage(f"extended header of {length} bytes at byte {at}")
            name, override = _extended(kind, read(at + BLOCK, length), name, override)
            at += BLOCK + _padded(length)
        if override >= 0:
            length = override
        data, is_file = at + BLOCK, kind in _FILES
        at = data + (_padded(length) if is_file else 0)
        if data + (length if is_file else 0) > size:
            raise TarDamage(f"the data of {name or _name(header)!r} is cut off at byte {size}")
        if is_file:
            yield Member(name or _name(header), start, data, length)


def _windowed(fd: int) -> Read:
    """Reads through one small buffer: most headers are behind members of a few hundred bytes."""
    begin, window = 0, b""

    def read(offset: int, length: int) -> bytes:
        nonlocal begin, window
        if not (begin <= offset and offset + length <= begin + len(window)):
            begin, window = offset, os.pread(fd, max(length, _WINDOW), offset)
        return window[offset - begin : offset - begin + length]

    return read


def _padded(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


def _size(header: bytes, at: int) -> int:
    """The size that a header gives, once its checksum is right."""
    try:
        said = int(header[148:156].strip(b"\0 "), 8)
        field = header[124:136]
        if field[0] & 0x80:  # GNU: binary, for 8 GB and more
            size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
        else:
            size = int(field.strip(b"\0 ") or b"0", 8)
    except ValueError as error:
        raise TarDamage(f"no header at byte {at}") from error
    # Most of a header is zeros, and taking them out is four times as fast as adding them up.
    if said != sum(header.translate(None, b"\0")) - sum(header[148:156]) + 256 or size < 0:
        raise TarDamage(f"no header at byte {at}")
    return size


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _extended(kind: bytes, body: bytes, name: str, size: int) -> tuple[str, int]:
    """The name and size of the next member, where a GNU long name or a PAX header gives them."""
    if kind == b"L":
        return body.split(b"\0", 1)[0].decode("utf-8", "surrogateescape"), size
    at = 0
    while kind == b"x" and (record := _PAX.match(body, at)):
        length = int(record[1])
        value = body[record.end() : at + length - 1]
        if record[2] == b"path":
            name = value.decode("utf-8", "surrogateescape")
        elif record[2] == b"size" and value.isdigit():
            size = int(value)
        at += max(length, record.end() - at)
    return name, size


class Handles:
    """Files that are open for reading, the last few of them. Not shared with other processes: they open their own."""

    def __init__(self, limit: int = OPEN_FILES) -> None:
        self._limit = limit
        self._open: OrderedDict[str, int] = OrderedDict()

    def read(self, path: str, offset: int, length: int) -> bytes:
        fd = self._open.pop(path, -1)
        if fd < 0:
            fd = os.open(path, os.O_RDONLY)
        self._open[path] = fd
        if len(self._open) > self._limit:
            os.close(self._open.popitem(last=False)[1])
        return os.pread(fd, length, offset)

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[type["Handles"], tuple[int]]:
        return Handles, (self._limit,)
