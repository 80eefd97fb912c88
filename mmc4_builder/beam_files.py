"""Input files on object stores: s3 by its own client, whatever else Beam knows (gs, hdfs) by Beam's file systems."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from mmc4_builder import s3
from mmc4_builder.http_rules import NotFound, TransportError, Unreachable
from mmc4_builder.storage_errors import StorageError

EXTRAS = {"gs": "gcp", "s3": "aws"}
# how Beam's file systems say that the client library behind them is not installed
NOT_INSTALLED = (ImportError, AssertionError, RuntimeError, ValueError)


class BeamStream:
    """A stored file from `offset` on. The clients' own errors come out as TransportErrors."""

    def __init__(self, path: str, offset: int = 0) -> None:
        self._path = path
        try:
            self._stream = _open(path)
            if offset:
                self._stream.seek(offset)
        except Exception as error:
            raise _translated(path, error) from error

    def read(self, size: int = -1, /) -> bytes:
        try:
            data: bytes = self._stream.read(size)
        except Exception as error:
            raise _translated(self._path, error) from error
        return data

    def tell(self) -> int:
        position: int = self._stream.tell()
        return position

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> "BeamStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


def match(pattern: str) -> list[str]:
    """Stored files that match a glob; none where nothing does."""
    try:
        if pattern.startswith("s3://"):
            return s3.match(pattern)
        (found,) = _file_systems(pattern).match([pattern])
    except Exception as error:
        raise _translated(pattern, error) from error
    return [str(metadata.path) for metadata in found.metadata_list]


def _open(path: str) -> Any:
    # Beam would unpack *.gz by itself: offsets must count the stored bytes
    return (
        s3.open_read(path)
        if path.startswith("s3://")
        else _file_systems(path).open(path, compression_type="uncompressed")
    )


def use(options: Sequence[str]) -> None:
    """Let object stores know Beam's own options from the start: a pipeline would hand them over when it is made."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    FileSystems.set_options(PipelineOptions(list(options)))


def _file_systems(path: str) -> Any:
    from apache_beam.io import filesystems
    from apache_beam.options.pipeline_options import PipelineOptions

    found: Any = filesystems.FileSystems  # Beam leaves it without types
    if found._pipeline_options is None:
        # A pipeline hands its options over when it starts; inputs are listed before, and s3 wants some.
        found.set_options(PipelineOptions([]))
    found.get_filesystem(path)  # ValueError for a scheme that nothing serves
    return found


def _translated(path: str, error: Exception) -> TransportError:
    if isinstance(error, FileNotFoundError) or type(error).__name__ == "NotFound" or _code(error) == 404:
        return NotFound(f"no such file: {path}")
    if isinstance(error, StorageError):
        return Unreachable(str(error))
    if isinstance(error, NOT_INSTALLED):
        kind = path.partition("://")[0].lower()
        extra = EXTRAS.get(kind)
        remedy = f"pip install 'mmc4-build[{extra}]'" if extra else "use a local path or an https:// address"
        return TransportError(f"no file system for {kind}:// ({path}); {remedy} ({error})")
    return Unreachable(f"cannot read {path}: {type(error).__name__}: {error}")


def _code(error: Exception) -> object:
    return getattr(error, "code", None)
