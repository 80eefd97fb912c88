"""Bytes from a path, wherever it lies: a local file, a web server, or any file system that Beam knows."""

import re
from types import TracebackType
from typing import Protocol

import requests

from mmc4_builder.beam_files import BeamStream
from mmc4_builder.http_rules import (
    DEFAULT_RETRY,
    Changed,
    Forbidden,
    NoRange,
    NotFound,
    RetryPolicy,
    TransportError,
    Unreachable,
)
from mmc4_builder.http_stream import HttpStream

__all__ = [
    "DEFAULT_RETRY",
    "HTTP_SCHEMES",
    "ByteStream",
    "Changed",
    "Forbidden",
    "NoRange",
    "NotFound",
    "RetryPolicy",
    "TooLarge",
    "TransportError",
    "Unreachable",
    "local_path",
    "open_stream",
    "read_bytes",
    "read_range",
    "scheme",
]

HTTP_SCHEMES = ("http", "https")
CHUNK = 1 << 20


class TooLarge(TransportError):
    """The file has more bytes than the caller allows."""


class ByteStream(Protocol):
    """What `open_stream` returns: the part of a binary file that a reader of WARC files needs."""

    def read(self, size: int = -1, /) -> bytes: ...
    def tell(self) -> int: ...
    def close(self) -> None: ...
    def __enter__(self) -> "ByteStream": ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...


def scheme(path: str) -> str:
    """The scheme of a path, lower case; "" for a local one. `file://` counts as local."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", path)
    name = found[1].lower() if found else ""
    return "" if name == "file" else name


def local_path(path: str) -> str:
    """A local path without the `file://` that it may start with."""
    return path[len("file://") :] if path[:7].lower() == "file://" else path


def open_stream(path: str, *, offset: int = 0, retry: RetryPolicy = DEFAULT_RETRY) -> ByteStream:
    """Open `path` for reading from byte `offset` on.

    A read may give fewer bytes than asked, but none only at the end. Raises NotFound, Forbidden, Unreachable
    or another TransportError, here or from `read`.
    """
    kind = scheme(path)
    if kind in HTTP_SCHEMES:
        return HttpStream(path, offset=offset, retry=retry)
    if kind:
        return BeamStream(path, offset)
    try:
        stream = open(local_path(path), "rb")  # noqa: SIM115 - the caller closes it
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"no such file: {path}") from error
    except OSError as error:
        raise TransportError(f"cannot open {path}: {error.strerror or error}") from error
    stream.seek(offset)
    return stream


def read_range(
    path: str,
    offset: int,
    length: int,
    *,
    retry: RetryPolicy = DEFAULT_RETRY,
    session: requests.Session | None = None,
) -> bytes:
    """Exactly `length` bytes from `offset`. Pass one `session` when many ranges are read from one server."""
    if offset < 0 or length < 0:
        raise ValueError(f"offset and length must not be negative, got {offset} and {length}")
    if scheme(path) in HTTP_SCHEMES:
        part: ByteStream = HttpStream(path, offset=offset, length=length, retry=retry, session=session)
    else:
        part = open_stream(path, offset=offset, retry=retry)
    data = _read_up_to(part, length)
    if len(data) < length:
        raise TransportError(f"{path} has only {len(data)} of the {length} bytes wanted at {offset}")
    return data


def read_bytes(path: str, max_bytes: int, *, retry: RetryPolicy = DEFAULT_RETRY) -> bytes:
    """A whole small file; TooLarge when it has more than `max_bytes`."""
    data = _read_up_to(open_stream(path, retry=retry), max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLarge(f"{path} has more than the {max_bytes} bytes allowed here")
    return data


def _read_up_to(stream: ByteStream, size: int) -> bytes:
    parts = []
    with stream:
        while size > 0 and (data := stream.read(min(size, CHUNK))):
            parts.append(data)
            size -= len(data)
    return b"".join(parts)
