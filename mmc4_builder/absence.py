"""Proof that keys are nowhere in a build: every file is read as what it is, and every text in it is searched.

This shares no code with what removes: it knows nothing of columns, of the meaning of a file, or of how an address
was found there. It opens Parquet, Arrow, zip, tar, gzip-free JSON and HTML, walks through all texts, and hashes
the members of tars and pictures in base64.
"""

import base64
import binascii
import hashlib
import html
import io
import json
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq

from mmc4_builder import storage

_START = re.compile(r"https?://", re.I)
_ONE = re.compile(r"https?://[^\s<>\"'`\\]*", re.I)
_REST = re.compile(r"[^\s<>\"'`\\]*")
_HEX = re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])")
_HOST_ONLY = re.compile(r"[^\s/:@]+\.[^\s/:@]+")
_AUTHORITY = re.compile(r"(?:[^/?#@]*@)?(\[[^\]]*\]|[^/?#:]*)(:[0-9]*)?(.*)", re.S)
_RESERVED = re.compile(r"%(2[Ff]|25|3[Ff])")  # octets that do not mean what the plain character means
_WITHIN = re.compile(r"[^\s<>\"'`\\,;|()]")  # before an address: it is part of a longer one


@dataclass(slots=True)
class Needles:
    """Keys to look for, each in the form in which it is compared."""

    domains: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, keys: Iterable[str]) -> "Needles":
        """The needles of a list of keys: 64 hex digits, addresses with a scheme, and else domains."""
        made = cls()
        for key in keys:
            if _HEX.fullmatch(key):
                made.hashes[key.lower()] = key
            elif _START.match(key):
                made.addresses[plain(key)[0]] = key
            else:
                made.domains[_ascii(key)] = key
        return made

    def in_text(self, text: str) -> Iterator[tuple[str, bool]]:
        """Each key that a text names, and whether it does so only inside of another address."""
        if len(text) >= 64 and self.hashes:
            yield from ((self.hashes[h], False) for one in _HEX.findall(text) if (h := one.lower()) in self.hashes)
        if self.domains and len(text) < 254 and _HOST_ONLY.fullmatch(text) and (key := self._domain(_ascii(text))):
            yield key, False
        if "://" not in text:
            return
        one = _ONE.fullmatch(text) is not None
        for start in (found.start() for found in _START.finditer(text)):
            within = start > 0 and (one or _WITHIN.match(text[start - 1]) is not None)
            yield from ((key, within) for key in self._named(text, start))

    def in_bytes(self, data: bytes) -> Iterator[tuple[str, bool]]:
        """The key of these very bytes."""
        if self.hashes and (key := self.hashes.get(hashlib.sha256(data).hexdigest())):
            yield key, False

    def _named(self, text: str, start: int) -> set[str]:
        """Keys that cover the address which begins here: up to the end of the text, of a word, or of a sentence."""
        word = _REST.match(text, start)
        word_text = word[0] if word else ""
        whole = [text[start:]] if start == 0 and len(text) < 10_000 else []
        found = set()
        for address in (*whole, word_text, word_text.rstrip(".,;:!?)]}")):
            form, host = plain(address)
            found |= {key for key in (self.addresses.get(form), self._domain(host)) if key}
        return found

    def _domain(self, host: str) -> str | None:
        labels = host.split(".")
        return next((self.domains[d] for i in range(len(labels)) if (d := ".".join(labels[i:])) in self.domains), None)


def plain(address: str) -> tuple[str, str]:
    """An address in the form in which two are compared, and its host."""
    rest = address.strip().partition("://")[2].partition("#")[0]
    found = _AUTHORITY.match(rest)
    if found is None:
        return "", ""
    host, port = _ascii(found[1]), found[2] or ""
    path, mark, query = found[3].partition("?")
    shown = "" if port in ("", ":", ":80", ":443") else port
    return f"{host.removeprefix('www.')}{shown}{_octets(path).rstrip('/')}{mark}{_octets(query)}", host


def _octets(text: str) -> str:
    kept = _RESERVED.sub(lambda found: "%25" + found[1].upper(), text)
    return unquote_to_bytes(kept.encode("utf-8", "surrogatepass")).decode("latin-1")


def _ascii(host: str) -> str:
    host = host.lower().strip(".")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def search(path: str, needles: Needles) -> tuple[Counter[str], Counter[str]]:
    """How often a file names each key, and how often only inside of other addresses."""
    hits: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    with storage.open_read(path) as stream:
        for key, within in _file(path, stream, needles):
            (inside if within else hits)[key] += 1
    return hits, inside


def _file(name: str, stream: BinaryIO, needles: Needles) -> Iterator[tuple[str, bool]]:
    """What a file, or a member of an archive, names; its own name counts too."""
    yield from needles.in_text(name)
    if name.endswith(".parquet"):
        yield from _tables(_parquet(stream), needles)
    elif name.endswith(".arrows"):
        yield from _tables(_arrows(stream), needles)
    elif name.endswith(".tar"):
        yield from _tar(stream, needles)
    elif name.endswith(".zip"):
        with zipfile.ZipFile(stream) as archive:
            for member in archive.namelist():
                with archive.open(member) as opened:
                    yield from _file(member, io.BufferedReader(opened), needles)  # type: ignore[type-var]
    elif name.endswith(".jsonl"):
        for line in stream:
            yield from _json(line, needles)
    elif name.endswith(".json"):
        yield from _json(stream.read(), needles)
    elif name.endswith(".html"):
        yield from needles.in_text(html.unescape(stream.read().decode("utf-8", "replace")))
    else:
        data = stream.read()
        yield from needles.in_bytes(data)
        yield from needles.in_text(data.decode("latin-1"))


def _parquet(stream: BinaryIO) -> Iterator[pa.Table]:
    file = pq.ParquetFile(stream)
    yield from (file.read_row_group(i) for i in range(file.num_row_groups))


def _arrows(stream: BinaryIO) -> Iterator[pa.Table]:
    """One stream after another, as they were written."""
    source = pa.PythonFile(stream, mode="r")
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    while stream.tell() < end:
        yield pa.ipc.open_stream(source).read_all()


def _tables(tables: Iterable[pa.Table], needles: Needles) -> Iterator[tuple[str, bool]]:
    for table in tables:
        for column in table.columns:
            for value in _leaves(column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)):
                yield from _value(value, needles)


def _leaves(array: pa.Array) -> Iterator[Any]:
    """Texts and bytes of a column, however deep; numbers are passed over."""
    kind = array.type
    if pa.types.is_nested(kind):
        children = (array.flatten(),) if not pa.types.is_struct(kind) else array.flatten()
        for child in children:
            yield from _leaves(child)
    elif not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        yield from array.to_pylist()


def _tar(stream: BinaryIO, needles: Needles) -> Iterator[tuple[str, bool]]:
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            yield from needles.in_text(member.name)
            is_json = member.name.endswith(".json")
            if (is_json or needles.hashes) and (opened := tar.extractfile(member)):
                yield from _json(opened.read(), needles) if is_json else needles.in_bytes(opened.read())


def _json(data: bytes, needles: Needles) -> Iterator[tuple[str, bool]]:
    yield from _value(json.loads(data), needles)


def _value(value: Any, needles: Needles) -> Iterator[tuple[str, bool]]:
    """Everything that a cell or a JSON value names."""
    if isinstance(value, str):
        yield from needles.in_text(value)
    elif isinstance(value, bytes):
        yield from needles.in_bytes(value)
        yield from needles.in_text(value.decode("utf-8", "replace"))
    elif isinstance(value, dict):
        for name, one in value.items():
            if name == "image_base64" and isinstance(one, str):
                yield from _picture(one, needles)
            else:
                yield from needles.in_text(name)
                yield from _value(one, needles)
    elif isinstance(value, list):
        for one in value:
            yield from _value(one, needles)


def _picture(text: str, needles: Needles) -> Iterator[tuple[str, bool]]:
    try:
        yield from needles.in_bytes(base64.b64decode(text))
    except binascii.Error:
        yield from needles.in_text(text)
