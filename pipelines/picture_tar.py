"""Pictures of one bucket, from the order in which they come into a tar and its rows in the order of their URLs."""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from mmc4_builder.workspace import Workspace
from pipelines.fetching import Outcome
from pipelines.spool import Place, Spool

IMAGE_FIELDS = (
    "sha256",
    "phash",
    "detail",
    "width",
    "height",
    "original_sha256",
    "original_format",
    "original_width",
    "original_height",
)
MAX_STATEMENTS = 256  # of one picture: more is an attack, and the first ones already say it

Row = dict[str, Any]


class Waiting:
    """Rows and pictures that wait for their turn on the disk: in memory is only where they lie."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._rows: dict[str, Place] = {}
        self._pictures: dict[str, Place] = {}

    def put(self, url: str, outcome: Outcome) -> None:
        """Take what became of one URL."""
        if outcome.image and outcome.image.sha256 not in self._pictures:
            self._pictures[outcome.image.sha256] = self._spool.put(outcome.image.data)
        self._rows[url] = self._spool.put(json.dumps(image_row(url, outcome)).encode())

    def row(self, url: str) -> tuple[Row, int]:
        """The row of one URL, and how many characters it has, roughly."""
        place = self._rows[url]
        return json.loads(self._spool.get(place)), place[1]

    def pictures(self) -> set[str]:
        """Hashes of all that wait."""
        return set(self._pictures)

    def picture(self, sha256: str) -> bytes:
        """The stored JPEG."""
        return self._spool.get(self._pictures[sha256])


def image_row(url: str, outcome: Outcome) -> Row:
    """A row of `images`, but for the place of the picture: what was found behind one URL."""
    got, image = outcome.got, outcome.image
    statements = [asdict(said) for said in dict.fromkeys(outcome.statements)][:MAX_STATEMENTS]
    row: Row = {"url": url, "reason": outcome.reason, "statements": statements}
    if got:
        headers = [{"name": name, "value": value} for name, value in got.headers]
        row |= {"origin": got.origin, "final_url": got.final_url, "fetched": got.fetched, "headers": headers}
        row |= {"warc": got.warc, "warc_offset": got.warc_offset}
    if image:
        row |= {name: getattr(image, name) for name in IMAGE_FIELDS}
    return row


class TarStore:
    """Pictures under their hash in a tar; `add` tells where the bytes lie, so that readers need no index of it.

    `known` are places of pictures in other tars, which are not stored again.
    """

    def __init__(self, tar: tarfile.TarFile, name: str, known: Mapping[str, Row] | None = None) -> None:
        self.name = name
        self._places = dict(known or {})
        self._tar = tar

    def place(self, sha256: str) -> Row | None:
        """Where a picture lies that was added before."""
        return self._places.get(sha256)

    def add(self, sha256: str, data: bytes) -> Row:
        if sha256 not in self._places:
            info = tarfile.TarInfo(f"{sha256}.jpg")
            info.size = len(data)
            offset = self._tar.offset + tarfile.BLOCKSIZE
            self._tar.addfile(info, io.BytesIO(data))
            self._places[sha256] = {"store": self.name, "store_offset": offset, "store_length": len(data)}
        return self._places[sha256]


@contextmanager
def open_tar(workspace: Workspace, name: str, known: Mapping[str, Row] | None = None) -> Iterator[TarStore]:
    """A tar of the build, whole when the block ends."""
    with (
        workspace.create(name) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT, bufsize=1 << 20) as tar,
    ):
        yield TarStore(tar, name, known)


def placed(urls: Iterable[str], waiting: Waiting, store: TarStore) -> Iterator[tuple[Row, int]]:
    """The rows of these URLs in this order, with the places of their pictures, and their weights."""
    for url in urls:
        row, weight = waiting.row(url)
        if sha256 := row.get("sha256"):
            row |= store.place(sha256) or store.add(sha256, waiting.picture(sha256))
        yield row, weight
