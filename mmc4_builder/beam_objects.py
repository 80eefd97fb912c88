"""Objects through Beam's file systems: `gs://`, and, to read only, every other scheme but s3."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from mmc4_builder.storage_errors import StorageError


def size(path: str) -> int | None:
    """Bytes of the object, or None where there is none."""
    with _translated("read", path):
        files = _file_systems()
        return files.match([path])[0].metadata_list[0].size_in_bytes if files.exists(path) else None


def open_read(path: str) -> BinaryIO:
    """A seekable stream."""
    stream: BinaryIO = _file_systems().open(path, compression_type="uncompressed")
    return stream


def read(path: str) -> bytes:
    """The whole object."""
    with open_read(path) as stream:
        return stream.read()


def look(path: str) -> tuple[bytes, str] | None:
    """A small object with its version, which Beam does not tell; None where there is none."""
    with _translated("read", path):
        return (read(path), "") if _file_systems().exists(path) else None


def put(path: str, stream: BinaryIO, length: int) -> None:
    """Write an object, which is visible when all of it is there. Where this fails its writer gives up the upload."""
    with _translated("write", path), _create(path) as target:
        shutil.copyfileobj(stream, target, 1 << 20)


def put_if(path: str, content: bytes, version: str | None) -> bool:
    """Beam knows no conditional writes: whoever must know who came last reads back."""
    with _translated("write", path), _create(path) as target:
        target.write(content)
    return True


def remove(path: str) -> None:
    """Delete an object; one that is not there is no error."""
    with _translated("write", path):
        if (files := _file_systems()).exists(path):
            files.delete([path])


def has_folder(folder: str) -> bool:
    """Whether there is any object below a prefix."""
    with _translated("read", folder):
        return bool(_file_systems().match([f"{folder.rstrip('/')}/**"], limits=[1])[0].metadata_list)


def names(folder: str) -> list[str]:
    """Names of the objects directly below a prefix, sorted."""
    with _translated("read", folder):
        found = _file_systems().match([f"{folder.rstrip('/')}/*"])[0].metadata_list
    return sorted(entry.path.rsplit("/", 1)[1] for entry in found)


def walk(root: str) -> list[str]:
    """Every object below a prefix, relative to it, in order."""
    prefix = f"{root.rstrip('/')}/"
    with _translated("read", root):
        found = _file_systems().match([f"{prefix}**"])[0].metadata_list
    return sorted(entry.path.removeprefix(prefix) for entry in found)


def sweep(root: str) -> int:
    """Nothing to do: an upload that was not finished is not visible, and the store forgets it after a week."""
    return 0


def _create(path: str) -> Any:
    if not path.startswith("gs://"):
        raise StorageError(f"{path}: what is not complete would be visible there; write to a folder, gs:// or s3://")
    return _file_systems().create(path, compression_type="uncompressed")


@contextmanager
def _translated(verb: str, path: str) -> Iterator[None]:
    """Beam's errors, and those of the clients behind it, have no type in common."""
    try:
        yield
    except (FileNotFoundError, StorageError):
        raise
    except Exception as error:
        raise StorageError(
            f"cannot {verb} {path} ({type(error).__name__}: {error}). What was committed before is safe: look whether "
            "the store can be reached and lets you in, then run the same command again"
        ) from error


def _file_systems() -> Any:
    """Imported only where a remote path is met: it costs half a second."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    if FileSystems._pipeline_options is None:
        FileSystems.set_options(PipelineOptions([]))  # a pipeline hands its own over when it starts
    return FileSystems
