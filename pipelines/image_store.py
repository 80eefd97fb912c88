"""Pictures that img2dataset has fetched: a folder of its WebDataset tars, indexed where they lie and joined on URL."""

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mmc4_builder import storage, transport
from mmc4_builder.workspace import Unit, Workspace, partition
from pipelines.archive import host_key
from pipelines.schemas import IMPORTED

PICTURES = frozenset({"jpg", "jpeg", "png", "webp"})  # encode_format of img2dataset, which names the members
MAX_JSON = 1 << 20  # bytes of one sample's description
BATCH = 10_000  # rows of a tar's Parquet file that are Python objects at a time
_STATUS = re.compile(r"HTTP Error (\d{3})\b")
_ERRORS = (  # what its error_message holds, in lower case -> our reason; the first that fits
    ("x-robots-tag", "optout_header"),
    ("timed out", "timeout"),
    ("name or service not known", "dns_failure"),
    ("nodename nor servname", "dns_failure"),
    ("temporary failure in name resolution", "dns_failure"),
    ("no address associated", "dns_failure"),
    ("certificate", "tls_failed"),
    ("ssl", "tls_failed"),
    ("connection refused", "connect_failed"),
    ("unreachable", "connect_failed"),
    ("no route to host", "connect_failed"),
    ("connection reset", "connection_reset"),
    ("remote end closed", "connection_reset"),
    ("incompleteread", "truncated_body"),
    ("image decoding error", "not_an_image"),
    ("image too small", "too_small"),
    ("aspect ratio", "bad_aspect"),
    ("hash mismatch", "hash_mismatch"),
)

Row = dict[str, Any]


class StoreError(Exception):
    """A folder that holds nothing to take pictures from; the message names it and the remedy."""


def store_units(folder: str) -> tuple[Unit, ...]:
    """A unit for each tar of the folder, in order of their names. A tar that changed is another one."""
    names = [name for name in storage.names(folder) if name.endswith(".tar")]
    if not names:
        raise StoreError(f"no *.tar in {folder}: give the output folder of img2dataset --output_format webdataset")
    paths = [storage.join(folder, name) for name in names]
    return tuple(
        Unit(name=f"{number:05d}", inputs=(path, str(storage.size(path)))) for number, path in enumerate(paths)
    )


def index_store(unit: Unit, workspace: Workspace, *, buckets: int) -> None:
    """One tar of img2dataset -> where the picture of each of its URLs lies, to the buckets of their hosts."""
    path = unit.inputs[0]
    with storage.open_read(path) as stream:
        places, descriptions, whole = _members(stream, int(unit.inputs[1]))
    if not whole:
        workspace.bury("tars", "truncated_tar", tar=path, detail=f"{len(places)} pictures stand before the cut")
    else:
        workspace.tally("tars", None)
    rows: list[Row] = []
    for key, url, error in _samples(path, descriptions):
        place = places.get(key)
        reason = None if place else reason_of(error) if error else "not_in_store" if whole else "truncated_tar"
        workspace.tally("store", reason)
        offset, length = place or (None, None)
        rows.append(
            {"key": host_key(url), "url": url, "reason": reason, "tar": path, "offset": offset, "length": length}
        )
    workspace.leave("imported", partition(pa.Table.from_pylist(rows, schema=IMPORTED), "key", buckets))


def _members(stream: BinaryIO, size: int) -> tuple[dict[str, tuple[int, int]], dict[str, str], bool]:
    """key -> offset and length of its picture; key -> URL as its JSON says; and whether the tar has its end."""
    places: dict[str, tuple[int, int]] = {}
    urls: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if member.offset_data + member.size > size:
                    return places, urls, False
                key, _, kind = member.name.rpartition(".")
                if kind in PICTURES:
                    places[key] = (member.offset_data, member.size)
                elif kind == "json" and (url := _described(tar, member)):
                    urls[key] = url
            return places, urls, _has_end(stream, size)
    except (tarfile.TarError, EOFError):
        return places, urls, False


def _has_end(stream: BinaryIO, size: int) -> bool:
    """Whether two blocks of zeros follow: a tar that was cut between two members looks whole but for them."""
    end = 2 * tarfile.BLOCKSIZE
    stream.seek(max(0, size - end))
    return size >= end and not any(stream.read(end))


def _described(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    if member.size > MAX_JSON or (stream := tar.extractfile(member)) is None:
        return None
    try:
        url = json.loads(stream.read()).get("url")
    except (ValueError, AttributeError, RecursionError):
        return None
    return url if isinstance(url, str) else None


def _samples(path: str, described: Mapping[str, str]) -> Iterator[tuple[str, str, str | None]]:
    """Key, URL and error of every sample: from the Parquet file beside the tar, else from the JSON within."""
    table = f"{path.removesuffix('.tar')}.parquet"
    if not storage.exists(table):
        yield from ((key, url, None) for key, url in described.items())
        return
    seen = set()
    try:
        with storage.open_read(table) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(BATCH, columns=["key", "url", "error_message"]):
                for row in batch.to_pylist():
                    if row["key"] is not None and row["url"] is not None:
                        seen.add(row["key"])
                        yield row["key"], row["url"], row["error_message"]
    except (pa.ArrowException, OSError):  # cut off with its tar: the rest is described within
        pass
    yield from ((key, url, None) for key, url in described.items() if key not in seen)


def reason_of(error: str) -> str:
    """Our reason for what img2dataset gives as error: one of few, whatever servers write into it."""
    if found := _STATUS.search(error):
        return f"http_{found[1]}"
    lower = error.lower()
    return next((reason for part, reason in _ERRORS if part in lower), "store_failed")


def best(imported: pa.Table) -> dict[str, Row]:
    """url -> the row to go by: one with a picture before one without, then in order of tar and place."""
    rows = sorted(imported.to_pylist(), key=lambda r: (r["reason"] is not None, r["tar"], r["offset"] or 0))
    return {row["url"]: row for row in reversed(rows)}


def read(tar: str, offset: int, length: int) -> tuple[bytes, str]:
    """A picture's bytes, and the ISO time at which img2dataset wrote it; TransportError where it cannot be read."""
    start = max(0, offset - tarfile.BLOCKSIZE)
    both = transport.read_range(tar, start, offset + length - start)
    data = both[offset - start :]
    try:
        written = tarfile.TarInfo.frombuf(both[: offset - start], "utf-8", "surrogateescape").mtime
    except tarfile.TarError:
        return data, ""
    return data, datetime.fromtimestamp(written, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
