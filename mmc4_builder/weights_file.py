"""A file of weights: a local path, or a URL that is fetched once; never one with another SHA-256 than asked for."""

import hashlib
import os
import pickle
import re
from pathlib import Path
from typing import BinaryIO

from mmc4_builder import storage, transport
from mmc4_builder.http_rules import RetryPolicy

MAX_BYTES = 1 << 30
CACHE_VARIABLE = "MMC4_CACHE"

_CHUNK = 1 << 20
_FRAGMENT = "#sha256="
_RETRY = RetryPolicy(tries=3, max_wait=5.0, max_retry_after=30.0, connect_timeout=10.0)  # a person waits


class WeightsFileError(Exception):
    """Weights that cannot be had, or are not what they should be: what, where, and how to go on."""


def find(place: str, sha256: str = "", *, max_bytes: int = MAX_BYTES) -> Path:
    """The local file behind a path or a URL (http, https, file, or a file system that Beam knows).

    `place` may say its own checksum, as pip does: `…#sha256=HEX`. A URL must have one, a path may. What was
    fetched stays in the cache folder, and is checked again at each use. Raises WeightsFileError.
    """
    place, _, said = place.partition(_FRAGMENT)
    expected = _checked_hex(sha256 or said, place)
    if not transport.scheme(place):
        return _local(Path(transport.local_path(place)).expanduser(), expected)
    if not expected:
        raise WeightsFileError(
            f"{place} has no checksum, and what a URL serves may change: add {_FRAGMENT}HEX to it, "
            "or download the file and give its path"
        )
    cached = cache_path(place, expected)
    if not (cached.is_file() and digest(cached) == expected):
        _fetch(place, cached, expected, max_bytes)
    return cached


def cache_path(url: str, sha256: str) -> Path:
    """Where the file of a URL is kept: below $MMC4_CACHE, else the user's own cache folder."""
    name = re.sub(r"[^\w.-]", "_", url.partition("?")[0].rpartition("/")[2])[-80:]
    return _cache_folder() / "weights" / f"{sha256[:16]}-{name}"


def digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            found.update(block)
    return found.hexdigest()


def digest_of_file(place: str | None) -> str:
    """SHA-256 of weights that are a file, so that another file under its name is noticed; "" for all others."""
    return digest(Path(place)) if place and Path(place).is_file() else ""


def cause(error: Exception) -> str:
    """What a reader of weights says, in a line; not torch's advice to run what the file holds."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is no plain file of tensors"
    return (str(error).partition("\n")[0] or type(error).__name__)[:300]


def _cache_folder() -> Path:
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).expanduser()
    users = os.environ.get("XDG_CACHE_HOME")
    return (Path(users) if users else Path.home() / ".cache") / "mmc4-build"


def _checked_hex(text: str, place: str) -> str:
    if text and not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise WeightsFileError(f"the checksum of {place} must be 64 hexadecimal digits of SHA-256, got {text!r}")
    return text.lower()


def _local(path: Path, expected: str) -> Path:
    if not path.is_file():
        raise WeightsFileError(f"no file of weights at {path}: give the path of one, or a URL with {_FRAGMENT}HEX")
    if expected and (found := digest(path)) != expected:
        raise WeightsFileError(_mismatch(str(path), expected, found))
    return path


def _mismatch(place: str, expected: str, found: str) -> str:
    return (
        f"{place} has SHA-256 {found}, expected {expected}: it is damaged or another file. "
        "Fetch it again, or give the checksum of the file that you mean"
    )


def _fetch(url: str, target: Path, expected: str, max_bytes: int) -> None:
    """Download to `target`, which appears only when its bytes have the expected checksum."""
    try:
        with storage.write_atomic(str(target)) as file:
            found = _copy(url, file, max_bytes, remedy=f"Without a network, copy the file to {target}")
            if found != expected:
                raise WeightsFileError(_mismatch(url, expected, found))
    except storage.StorageError as error:
        raise WeightsFileError(f"no room for weights: {error} ${CACHE_VARIABLE} names another folder") from error


def _copy(url: str, file: BinaryIO, max_bytes: int, *, remedy: str) -> str:
    """Everything behind `url` into `file`; its SHA-256."""
    found = hashlib.sha256()
    try:
        with transport.open_stream(url, retry=_RETRY) as source:
            while block := source.read(_CHUNK):
                found.update(block)
                if file.write(block) and file.tell() > max_bytes:
                    raise WeightsFileError(f"{url} has more than {max_bytes:,} bytes, which these weights have not")
    except transport.TransportError as error:
        raise WeightsFileError(f"weights cannot be fetched: {error}. {remedy}") from error
    return found.hexdigest()
