"""Samples by number: what a dataset's folder holds, whichever of the four layouts it has."""

import glob
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from train.config import InterleavedConfig, Kind, VideosConfig
from train.released import Released
from train.samples import PICTURES, VIDEOS, DataError, Sample, Source, captioned_sample, document_sample
from train.sequences import Skip
from train.tar_index import MAX_MEMBER_BYTES, MAX_SAMPLE_BYTES, Handles, TarDamage, index_tar, members, split_name

__all__ = ["DataError", "Sample", "Source", "Tars", "open_source"]

THREADS = 16  # that read headers: on a network's file system they mostly wait
_log = logging.getLogger(__name__)


def open_source(path: str | Path, kind: Kind) -> Source:
    """What is under `path`: a build's folder, a folder or pattern of tars, or docs zips beside a folder `images`.

    Raises DataError where there is nothing, or nothing that can be read.
    """
    if "://" in str(path):
        raise DataError(
            f"{path}: samples are read by their places in files: copy the folder to a disk "
            "(aws s3 sync, gcloud storage rsync) or mount the bucket, and name that"
        )
    tars = _matching(path, "*.tar")
    if tars:
        return _open_tars(tars, kind, str(path))
    zips = _matching(path, "*.jsonl.zip") if isinstance(kind, InterleavedConfig) else []
    if zips:
        return _open_zips(zips, Path(path))
    raise DataError(f"{path}: nothing to train on there; expected {_expected(kind)}")


def _expected(kind: Kind) -> str:
    if isinstance(kind, InterleavedConfig):
        return "a build's folder with shards/*.tar, a folder or pattern of tars, or *.jsonl.zip beside a folder images"
    files = "/".join(VIDEOS if isinstance(kind, VideosConfig) else PICTURES)
    return f"a folder or pattern of tars with members KEY.{files} and KEY.txt"


def _matching(path: str | Path, pattern: str) -> list[Path]:
    """Files in order of their names: of a pattern, of a folder, of a build's shards/ or docs/; or the file itself."""
    root = Path(path)
    if root.is_dir():
        for folder in (root / "shards", root, root / "docs"):
            if found := sorted(folder.glob(pattern)):
                return found
        return []
    if root.is_file():
        return [root] if root.match(pattern) else []
    return sorted(file for name in glob.glob(str(path), recursive=True) if (file := Path(name)).match(pattern))


def _open_tars(paths: Sequence[Path], kind: Kind, path: str) -> "Tars":
    with ThreadPoolExecutor(min(THREADS, len(paths))) as pool:
        indexed = list(pool.map(index_tar, paths))
    problems: Counter[str] = Counter()
    for tar, found in zip(paths, indexed, strict=True):
        if found.damage:
            problems["damaged_shard"] += 1
            _log.warning("%s: %s; the %d samples before that are used", tar, found.damage, len(found.spans))
    problems += _short_of(paths, [len(found.spans) for found in indexed])
    spans = [(tar, *span) for tar, found in enumerate(indexed) for span in found.spans]
    if not spans:
        said = next((found.damage for found in indexed if found.damage), f"no members as in {_expected(kind)}")
        raise DataError(
            f"{path}: no sample in {len(paths)} tars, the first of them {paths[0]}: {said}; build or copy them again"
        )
    return Tars([str(tar) for tar in paths], torch.tensor(spans, dtype=torch.int64), kind, problems)


def _short_of(paths: Sequence[Path], counts: Sequence[int]) -> Counter[str]:
    """Tars that sizes.json lists and that are not there, or that have another number of samples than it says."""
    problems: Counter[str] = Counter()
    for folder in {tar.parent for tar in paths}:
        try:
            said = json.loads((folder / "sizes.json").read_bytes())
        except (OSError, ValueError):
            continue  # img2dataset and others write none
        if not isinstance(said, dict):
            continue
        found = {tar.name: count for tar, count in zip(paths, counts, strict=True) if tar.parent == folder}
        missing = sorted(set(said) - {tar.name for tar in folder.glob("*.tar")})
        other = sorted(name for name in found.keys() & said.keys() if found[name] != said[name])
        for reason, names in (("missing_shard", missing), ("shard_of_other_size", other)):
            if names:
                problems[reason] += len(names)
                _log.warning("%s: %s: %d, as %s", folder / "sizes.json", reason, len(names), ", ".join(names[:3]))
    return problems


class Tars:
    """Samples in tars. 24 bytes each are kept, in memory that the workers of a process share."""

    def __init__(self, paths: Sequence[str], spans: Tensor, kind: Kind, problems: Mapping[str, int]) -> None:
        self.paths, self.kind, self.problems = paths, kind, problems
        self._spans = spans  # int64 [samples, 3]: tar, start, stop
        self._handles = Handles()

    def __len__(self) -> int:
        return len(self._spans)

    def read(self, index: int) -> Sample:
        tar, start, stop = self._spans[index].tolist()
        if stop - start > MAX_SAMPLE_BYTES:
            raise Skip("too_many_bytes")
        try:
            data = self._handles.read(self.paths[tar], start, stop - start)
            found = list(members(lambda at, length: data[at : at + length], len(data), whole=False))
        except (TarDamage, OSError) as error:
            raise Skip("damaged_shard") from error
        if any(member.size > MAX_MEMBER_BYTES for member in found):
            raise Skip("too_many_bytes")
        key, parts = "", {}
        for member in found:
            if named := split_name(member.name):
                key = named[0]
                parts[named[1]] = data[member.data : member.data + member.size]
        if isinstance(self.kind, InterleavedConfig):
            return document_sample(key, parts)
        return captioned_sample(key, parts, video=isinstance(self.kind, VideosConfig))


def _open_zips(zips: Sequence[Path], path: Path) -> Source:
    root = path if path.is_dir() else zips[0].parent
    folder = next((place for place in (root / "images", root.parent / "images") if place.is_dir()), root)
    found = Released(zips, folder)
    for zip_, damage in found.damage.items():
        _log.warning("%s: %s; the documents before that are used", zip_, damage)
    if not len(found):
        said = next(iter(found.damage.values()), "they are empty")
        raise DataError(f"{path}: no document in {len(zips)} zips, the first of them {zips[0]}: {said}; fetch it again")
    return found
