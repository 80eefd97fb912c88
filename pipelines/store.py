"""Reads pictures back out of the store, by offset."""

from typing import Any

from mmc4_builder import storage
from mmc4_builder.workspace import Workspace


class Tars:
    """Reads pictures out of the store by offset; keeps the tars open that it has met."""

    def __init__(self, workspace: Workspace, most: int = 64) -> None:
        self._workspace = workspace
        self._open: dict[str, Any] = {}
        self._most = most

    def __enter__(self) -> "Tars":
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def read(self, image: dict[str, Any]) -> bytes:
        if image["store"] not in self._open:
            if len(self._open) >= self._most:
                self._open.pop(next(iter(self._open))).close()
            self._open[image["store"]] = storage.open_read(self._workspace.path(image["store"]))
        tar = self._open[image["store"]]
        tar.seek(image["store_offset"])
        data: bytes = tar.read(image["store_length"])
        return data
