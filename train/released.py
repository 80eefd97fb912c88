"""MMC4 as it was released: docs zips, and beside them a folder of pictures that somebody has fetched."""

import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from mmc4_builder.mmc4_format import FormatError, read_docs_lines
from train.samples import Sample, read_document
from train.sequences import Skip
from train.tar_index import MAX_MEMBER_BYTES, Handles


class Released:
    """Documents of docs zips by number, with the pictures that are in `pictures`.

    A deflated zip can only be read from its start, so its lines are written down once, into a file in the folder
    for temporary files (TMPDIR), which goes when this object goes. Workers read the same file.
    """

    def __init__(self, zips: Iterable[Path], pictures: Path) -> None:
        folder = tempfile.mkdtemp(prefix="mmc4-docs-")
        self._cleaner: weakref.finalize[..., Released] | None = weakref.finalize(self, shutil.rmtree, folder, True)
        self._path = os.path.join(folder, "docs.jsonl")
        self._pictures = pictures
        self._starts, self.damage = _unpack(zips, self._path)
        self._handles = Handles()
        self.problems: Mapping[str, int] = {"damaged_shard": len(self.damage)} if self.damage else {}

    def __len__(self) -> int:
        return len(self._starts) - 1

    def read(self, index: int) -> Sample:
        """Raises Skip: bad_document."""
        start, stop = self._starts[index : index + 2].tolist()
        doc = read_document(self._handles.read(self._path, start, stop - start), f"document {index}")
        listed = doc.get("image_info")
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise Skip("bad_document")
        images = tuple(picture(self._pictures, entry.get("image_name")) for entry in listed)
        return Sample(key=f"{index:09d}", doc=doc, images=images)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cleaner": None}  # the file is its maker's to remove


def _unpack(zips: Iterable[Path], path: str) -> tuple[Tensor, dict[str, str]]:
    """Where each line of the new file starts, and why a zip ended early: what comes before is used."""
    starts, damage = [0], {}
    with open(path, "wb", buffering=1 << 20) as out:
        for source in zips:
            try:
                for line in read_docs_lines(source):
                    if line:
                        out.write(line)
                        starts.append(starts[-1] + len(line))
            except (FormatError, OSError) as error:
                damage[str(source)] = str(error)
    return torch.tensor(starts, dtype=torch.int64), damage


def picture(folder: Path, name: object) -> bytes | None:
    """A picture by the name in its document. None: not there. No bytes: no name of a picture, or too large a file.

    Names come from outside: one that leads anywhere else, or to a pipe, is not followed.
    """
    if not isinstance(name, str) or not name or name != os.path.basename(name) or "\0" in name or name in (".", ".."):
        return b""
    try:
        fd = os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError):  # ValueError: half a surrogate pair
        return None
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_MEMBER_BYTES:
            return b""
        return os.read(fd, about.st_size)
    except OSError:
        return b""
    finally:
        os.close(fd)
