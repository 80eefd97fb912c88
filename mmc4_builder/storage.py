"""Where results lie: a local folder or an object store, written so that nothing is ever half visible."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import BinaryIO, Protocol
from uuid import uuid4

from mmc4_builder import beam_objects, s3
from mmc4_builder.storage_errors import StorageError as StorageError


class ObjectStore(Protocol):
    """What is asked of an object store. A module each: `s3` for its protocol, `beam_objects` for all others."""

    def size(self, path: str, /) -> int | None: ...
    def open_read(self, path: str, /) -> BinaryIO: ...
    def read(self, path: str, /) -> bytes: ...
    def look(self, path: str, /) -> tuple[bytes, str] | None: ...
    def put(self, path: str, stream: BinaryIO, length: int, /) -> None: ...
    def put_if(self, path: str, content: bytes, version: str | None, /) -> bool: ...
    def remove(self, path: str, /) -> None: ...
    def has_folder(self, folder: str, /) -> bool: ...
    def names(self, folder: str, /) -> list[str]: ...
    def walk(self, root: str, /) -> list[str]: ...
    def sweep(self, root: str, /) -> int: ...


def objects(path: str) -> ObjectStore:
    """The object store in which a remote path lies."""
    return s3 if path.startswith("s3://") else beam_objects


def is_local(path: str) -> bool:
    """Whether the path is a file of this machine rather than an object (`gs://`, `s3://`, ...)."""
    return "://" not in path


def join(root: str, *parts: str) -> str:
    """Join with forward slashes, on object stores and POSIX alike."""
    return "/".join((root.rstrip("/"), *parts))


def exists(path: str) -> bool:
    """Whether a file or object of this name is there."""
    return os.path.exists(path) if is_local(path) else objects(path).size(path) is not None


def size(path: str) -> int | None:
    """Bytes of the file, or None where there is none."""
    if is_local(path):
        return os.path.getsize(path) if os.path.isfile(path) else None
    return objects(path).size(path)


def names(folder: str) -> list[str]:
    """Names of the files directly below a folder, sorted; a folder that is not there has none."""
    if is_local(folder):
        if not os.path.isdir(folder):
            return []
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_file() and entry.name[0] != ".")
    return [name for name in objects(folder).names(folder) if name[0] != "."]


def has_folder(path: str) -> bool:
    """Whether a folder is there; in an object store, whether anything lies below that name."""
    return os.path.isdir(path) if is_local(path) else objects(path).has_folder(path)


def walk(root: str) -> list[str]:
    """Every file below a folder, as paths relative to it, in order."""
    if not is_local(root):
        return objects(root).walk(root)
    found = (os.path.join(folder, name) for folder, _, files in os.walk(root) for name in files)
    return sorted(os.path.relpath(path, root).replace(os.sep, "/") for path in found)


def open_read(path: str) -> BinaryIO:
    """A seekable stream for reading."""
    return open(path, "rb") if is_local(path) else objects(path).open_read(path)


def read(path: str) -> bytes:
    """The whole file; for small ones."""
    if not is_local(path):
        return objects(path).read(path)
    with open_read(path) as stream:
        return stream.read()


def find(path: str) -> bytes | None:
    """The whole of a small file, None where there is none: one request where `exists` and `read` are two."""
    if not is_local(path):
        found = objects(path).look(path)
        return found and found[0]
    try:
        return read(path)
    except FileNotFoundError:
        return None


def remove(path: str) -> None:
    """Delete a file; one that is not there is no error."""
    if not is_local(path):
        objects(path).remove(path)
    elif exists(path):
        os.remove(path)


@contextmanager
def write_atomic(path: str) -> Iterator[BinaryIO]:
    """A stream whose content appears under `path` whole when the block ends, or not at all.

    Local: a temporary name beside the target, fsync, one rename. Object store: a local spool file, then one
    upload straight to the final name, which becomes visible when it is complete (a rename there would be a
    copy and a delete). The spool has no name, so a killed process leaves none.
    """
    if is_local(path):
        with _translated(path), _local_temporary(path) as stream:
            yield stream
        return
    with _translated(f"{path}, by way of {tempfile.gettempdir()}"), tempfile.TemporaryFile() as spool:
        yield spool
        length = spool.seek(0, os.SEEK_END)
        spool.seek(0)
        objects(path).put(path, spool, length)


def write(path: str, data: bytes) -> None:
    """Write a small file atomically."""
    if not is_local(path):
        objects(path).put(path, BytesIO(data), len(data))
        return
    with write_atomic(path) as stream:
        stream.write(data)


@contextmanager
def _local_temporary(path: str) -> Iterator[BinaryIO]:
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{name}.{uuid4().hex}.tmp")
    try:
        with open(temporary, "xb", buffering=1 << 20) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(folder)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def _sync_folder(folder: str) -> None:
    """Make the rename itself durable: without it a power cut can lose a file that was reported as written."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}. What was committed before is safe: make room or "
            "fix the permission, then run the same command again."
        ) from error


def sweep(root: str) -> int:
    """Delete what a killed run left unfinished below a root: temporary files, uploads in parts; returns how many."""
    if not is_local(root):
        return objects(root).sweep(root)
    count = 0
    for folder, _, files in os.walk(root):
        for name in files:
            if name.startswith(".") and name.endswith(".tmp"):
                os.remove(os.path.join(folder, name))
                count += 1
    return count
