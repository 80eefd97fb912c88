"""Where results lie: a local folder or an object store, written so that nothing is ever half visible."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO
from uuid import uuid4


class StorageError(Exception):
    """The output cannot be read or written; the message names the path and the remedy."""


def is_local(path: str) -> bool:
    """Whether the path is a file of this machine rather than an object (`gs://`, `s3://`, ...)."""
    return "://" not in path


def join(root: str, *parts: str) -> str:
    """Join with forward slashes, on object stores and POSIX alike."""
    return "/".join((root.rstrip("/"), *parts))


def exists(path: str) -> bool:
    """Whether a file or object of this name is there."""
    return os.path.exists(path) if is_local(path) else bool(_filesystems().exists(path))


def size(path: str) -> int | None:
    """Bytes of the file, or None where there is none."""
    if is_local(path):
        return os.path.getsize(path) if os.path.isfile(path) else None
    filesystems = _filesystems()
    return filesystems.match([path])[0].metadata_list[0].size_in_bytes if filesystems.exists(path) else None


def names(folder: str) -> list[str]:
    """Names of the files directly below a folder, sorted; a folder that is not there has none."""
    if is_local(folder):
        if not os.path.isdir(folder):
            return []
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_file() and entry.name[0] != ".")
    found = _filesystems().match([join(folder, "*")])[0].metadata_list
    return sorted(entry.path.rsplit("/", 1)[1] for entry in found)


def open_read(path: str) -> BinaryIO:
    """A seekable stream for reading."""
    return open(path, "rb") if is_local(path) else _filesystems().open(path, compression_type="uncompressed")


def read(path: str) -> bytes:
    """The whole file; for small ones."""
    with open_read(path) as stream:
        return stream.read()


def remove(path: str) -> None:
    """Delete a file; one that is not there is no error."""
    if exists(path):
        os.remove(path) if is_local(path) else _filesystems().delete([path])


@contextmanager
def write_atomic(path: str) -> Iterator[BinaryIO]:
    """A stream whose content appears under `path` whole when the block ends, or not at all.

    Local: a temporary name beside the target, fsync, one rename. Object store: a local spool file, then one
    upload straight to the final name, which becomes visible when it is complete (a rename there would be a
    copy and a delete).
    """
    if is_local(path):
        with _translated(path), _local_temporary(path) as stream:
            yield stream
    else:
        with tempfile.TemporaryFile() as spool:
            yield spool
            spool.seek(0)
            with _filesystems().create(path, compression_type="uncompressed") as target:
                shutil.copyfileobj(spool, target, 1 << 20)


def write(path: str, data: bytes) -> None:
    """Write a small file atomically."""
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
    """Delete temporary files that a killed run left below a local root; returns how many."""
    if not is_local(root):
        return 0
    count = 0
    for folder, _, files in os.walk(root):
        for name in files:
            if name.startswith(".") and name.endswith(".tmp"):
                os.remove(os.path.join(folder, name))
                count += 1
    return count


def _filesystems() -> Any:
    """Beam's filesystems, imported only where a remote path is met: they cost half a second."""
    from apache_beam.io.filesystems import FileSystems

    return FileSystems
