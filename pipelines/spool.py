"""Bytes put aside on the local disk until it is their turn: results come in any order, files are written in one."""

import os
import tempfile

from mmc4_builder.storage import StorageError

Place = tuple[int, int]  # offset and length


class Spool:
    """A temporary file that remembers nothing: `put` tells where the bytes lie, and `get` wants to know.

    The file has no name, so that nothing is left of it however the process ends.
    """

    def __init__(self) -> None:
        # Without a buffer, or a full disk would be met again when the file is closed, and hide the first error.
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._end = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, data: bytes) -> Place:
        """Keep these bytes."""
        place = (self._end, len(data))
        try:
            while data and (written := os.pwrite(self._file.fileno(), data, self._end)):
                self._end += written
                data = data[written:]
        except OSError as error:
            raise StorageError(
                f"cannot write a temporary file in {tempfile.gettempdir()}: {error.strerror or error}. What was "
                "committed before is safe: make room there, or name another folder in TMPDIR, then run the same "
                "command again."
            ) from error
        return place

    def get(self, place: Place) -> bytes:
        """The bytes that were put there."""
        offset, length = place
        return os.pread(self._file.fileno(), length, offset)
