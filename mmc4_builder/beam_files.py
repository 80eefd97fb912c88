"""Files on the object stores that Beam knows (gs, s3, hdfs), without Beam until one is met."""

from types import TracebackType
from typing import Any

from mmc4_builder.http_rules import NotFound, TransportError, Unreachable

EXTRAS = {"gs": "gcp", "s3": "aws"}
# how Beam's file systems say that the client library behind them is not installed
NOT_INSTALLED = (ImportError, AssertionError, RuntimeError, ValueError)


class BeamStream:
    """A stored file from `offset` on. The clients' own errors come out as TransportErrors."""

    def __init__(self, path: str, offset: int = 0) -> None:
        self._path = path
        try:
            # Beam would unpack *.gz by itself: offsets must count the stored bytes
            self._stream = _file_systems(path).open(path, compression_type="uncompressed")
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
        (found,) = _file_systems(pattern).match([pattern])
    except Exception as error:
        raise _translated(pattern, error) from error
    return [str(metadata.path) for metadata in found.metadata_list]


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
    if isinstance(error, NOT_INSTALLED):
        kind = path.partition("://")[0].lower()
        extra = EXTRAS.get(kind)
        remedy = f"pip install 'mmc4-build[{extra}]'" if extra else "use a local path or an https:// address"
        return TransportError(f"no file system for {kind}:// ({path}); {remedy} ({error})")
    return Unreachable(f"cannot read {path}: {type(error).__name__}: {error}")


def _code(error: Exception) -> object:
    return getattr(error, "code", None)
