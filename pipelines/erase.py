"""What a removal takes out of rows, as pure functions: which rows go, which stay as blanks, and what is left of them.

A row that is about something removed goes. Where other files count rows by their number it stays, blank. In all
other rows, pictures that were removed leave the lists that name them, and an address that merely stands in a text
(a header, a sentence, another host's robots.txt) gives way to a mark.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mmc4_builder.key_lists import KeyList

REMOVED = "removed"  # the reason, in counts and decisions
MARK = "[removed]"  # in the place of an address within a text
ADDRESSES = ("url", "final_url", "target", "page_url")  # columns that say what a row is about
HASHES = ("sha256", "original_sha256")

# An address within a text ends where the next one begins; one that fills a text may hold others.
_ADDRESS = re.compile(r"https?://(?:(?![,;|()]https?://)[^\s<>\"'`\\])+", re.I)
_ONE = re.compile(r"https?://[^\s<>\"'`\\]+", re.I)
_HOST = re.compile(r"[^\s/:@]+\.[^\s/:@]+")
_CLOSING = ".,;:!?)]}"  # that end a sentence rather than an address

Row = dict[str, Any]
Clean = Callable[[Row], Row | None]  # what is left of a row; None where it goes


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Everything that is to go, as far as one unit of work has to know it."""

    keys: KeyList
    urls: frozenset[str] = frozenset()  # that go for their bytes, or for where they led
    rows: frozenset[int] = frozenset()  # documents of the unit
    gone: frozenset[str] = frozenset()  # hashes of pictures that no address of the unit's bucket shows any more

    def url(self, url: str) -> bool:
        """Whether this page or picture goes."""
        return url in self.urls or self.keys.matches_url(url) is not None

    def about(self, row: Mapping[str, Any]) -> bool:
        """Whether a row, or an entry of a list, is about something that goes."""
        addresses = (row.get(name) for name in ADDRESSES)
        hashes = [row[name] for name in HASHES if row.get(name)]
        return any(self.url(url) for url in addresses if url) or self.keys.matches_hash(*hashes) is not None

    def within(self, text: str) -> bool:
        """Whether a text is, or holds, the address or the hash of something that goes."""
        if "://" not in text:
            return self._is_key(text)
        if self.url(text) or _ONE.fullmatch(text):
            return self._trimmed(text) is not None
        return any(self._trimmed(found[0]) for found in _ADDRESS.finditer(text))

    def scrub(self, text: str) -> str:
        """The text without the addresses and hashes of what goes."""
        if "://" not in text:
            return MARK if self._is_key(text) else text
        if self.url(text):
            return MARK
        return (_ONE if _ONE.fullmatch(text) else _ADDRESS).sub(self._replace, text)

    def _is_key(self, text: str) -> bool:
        """Whether a text without addresses is a hash, or the bare name of a host, that goes."""
        if self.keys.matches_hash(text):
            return True
        is_host = bool(self.keys.domains) and len(text) < 254 and _HOST.fullmatch(text) is not None
        return is_host and self.keys.matches_url(f"http://{text}/") is not None

    def _replace(self, found: re.Match[str]) -> str:
        address = self._trimmed(found[0])
        return found[0] if address is None else MARK + found[0][len(address) :]

    def _trimmed(self, address: str) -> str | None:
        """The address that goes, without the marks that end its sentence; None where it stays."""
        return next((one for one in (address.rstrip(_CLOSING), address) if self.url(one)), None)


def clean(row: Row, marks: Marks) -> Row | None:
    """What is left of a row that others do not count by its number."""
    return None if marks.about(row) else _clean_fields(row, marks)


def clean_page(row: Row, marks: Marks) -> Row:
    """A page or a document: one that goes leaves a blank, since other files count its row."""
    return blank(row) if marks.url(row["url"]) else _clean_fields(row, marks)


def clean_scored(row: Row, marks: Marks) -> Row:
    """The scores of one document."""
    return {**row, "images": []} if row["row"] in marks.rows else _clean_fields(row, marks)


def clean_hashed(row: Row, marks: Marks) -> Row | None:
    """What is known of a picture by its hash alone."""
    return None if row["sha256"] in marks.gone else row


def blank(row: Row) -> Row:
    """A row that says nothing."""
    return {name: type(value)() if value is not None else None for name, value in row.items()}


def clean_value(value: Any, marks: Marks) -> Any:
    """What is left of a cell, or of a JSON value."""
    if isinstance(value, str):
        return marks.scrub(value)
    if isinstance(value, bytes):
        return marks.scrub(value.decode("latin-1")).encode("latin-1")
    if isinstance(value, dict):
        return _clean_fields(value, marks)
    if isinstance(value, list) and value and isinstance(value[0], (str, bytes, dict, list)):
        return [clean_value(one, marks) for one in value if not (isinstance(one, dict) and marks.about(one))]
    return value


def _clean_fields(row: Row, marks: Marks) -> Row:
    return {name: clean_value(value, marks) for name, value in row.items()}


def touched(table: pa.Table, marks: Marks) -> bool:
    """Whether any text of a table names something that goes. Numbers, of which vectors are made, are not looked at."""
    return any(marks.within(text) for column in table.columns for text in texts(column))


def texts(column: pa.ChunkedArray | pa.Array) -> Iterator[str]:
    """Every distinct text in a column, however deep it lies."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield from (text for text in column.unique().to_pylist() if text)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        yield from (data.decode("latin-1") for data in column.unique().to_pylist() if data)
    elif pa.types.is_struct(kind):
        for chunk in _chunks(column):
            for field in chunk.flatten():
                yield from texts(field)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        for chunk in _chunks(column):
            yield from texts(chunk.flatten())


def _chunks(column: pa.ChunkedArray | pa.Array) -> Iterable[pa.Array]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else (column,)


def move(counts: dict[str, int], what: str, reason: str | None, times: int = 1) -> None:
    """Something that was kept, or dropped for another reason, now counts as removed. What entered stays."""
    before = f"{what}.kept" if reason is None else f"{what}.dropped.{reason}"
    times = min(times, counts.get(before, 0))
    if times and reason != REMOVED:
        counts[before] -= times
        counts[f"{what}.dropped.{REMOVED}"] = counts.get(f"{what}.dropped.{REMOVED}", 0) + times
