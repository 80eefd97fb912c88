"""Bytes put aside on the local disk until it is their turn: results come in any order, files are written in one."""

import tempfile
from typing import BinaryIO

from mmc4_builder.storage import StorageError

Place = tuple[int, int]  # offset and length


class Spool:
    """A temporary file that remembers nothing: `put` tells where the bytes lie, and `get` wants to know.

    The file has no name, so that nothing is left of it however the process ends.
    """

    def __init__(self) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        self._end = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, data: bytes) -> Place:
        """Keep these bytes."""
        place = (self._end, len(data))
        try:
            self._file.seek(self._end)
            self._file.write(data)
        except OSError as error:
            raise StorageError(
                f"cannot write a temporary file in {tempfile.gettempdir()}: {error.strerror or error}. Make room, "
                "or name another folder in TMPDIR, then run the same command again."
            ) from error
        self._end += len(data)
        return place

    def get(self, place: Place) -> bytes:
        """The bytes that were put there."""
        offset, length = place
        self._file.seek(offset)
        return self._file.read(length)
