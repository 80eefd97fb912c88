"""What a WARC file holds for this project: an HTTP response as a record, or the reason why it is none."""

import re
from dataclasses import dataclass

from mmc4_builder.http_message import MAX_HEAD, BadMessage, Headers, decode_body, header, split_message

READ_AHEAD = 1 << 20  # bytes of the file beside the largest record, for the buffers of those who read it
UNMARKED_CUT = 1 << 20  # until 2019 Common Crawl cut many pages at 1 MiB without saying so (cc-notebooks)
WARC_FIELDS = (
    "WARC-Target-URI",
    "WARC-Date",
    "WARC-Payload-Digest",
    "WARC-Truncated",
    "WARC-Identified-Payload-Type",
)
Fields = tuple[str, str, str, str, str]  # the values of WARC_FIELDS, "" where there is none

_HTTP_URL = re.compile(r"https?://[^\s/?#]", re.IGNORECASE)
_OTHER_URL = re.compile(r"(?!https?:)[A-Za-z][A-Za-z0-9+.-]*:", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarcLimits:
    """Bounds on one record, in bytes. Common Crawl cuts payloads at 1 MiB, since 2025-13 at 5 MiB."""

    max_payload: int = 16 << 20  # decoded
    max_warc_header: int = 32 << 10

    def __post_init__(self) -> None:
        if self.max_payload < 1 or self.max_warc_header < 1024:
            raise ValueError(f"WARC limits want max_payload >= 1 and max_warc_header >= 1024, got {self}")

    @property
    def max_block(self) -> int:
        """HTTP header and stored body together."""
        return self.max_payload + MAX_HEAD

    @property
    def max_stored(self) -> int:
        """A record in the file, with room to read ahead."""
        return self.max_block + READ_AHEAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One HTTP response as it was crawled."""

    url: str
    timestamp: str  # WARC-Date
    offset: int
    length: int  # of the record as stored, in bytes of the file: a whole gzip member
    digest: str  # WARC-Payload-Digest, "" without
    status: int
    headers: Headers
    content_type: str  # media type in lower case, without parameters; "" without
    payload: bytes  # transfer and content codings undone
    truncated: str  # WARC-Truncated, or what was found instead; "" when whole

    def header(self, name: str) -> str:
        """The first value of an HTTP header, or ""."""
        return header(self.headers, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecord:
    """A response, or a stretch of a file, that cannot be used. `reason` is a counter's name."""

    reason: str
    path: str
    offset: int
    detail: str = ""


class WarcError(Exception):
    """A record that was asked for cannot be used. `reason` is a counter's name."""

    def __init__(self, reason: str, path: str, offset: int, detail: str = "") -> None:
        super().__init__(reason, path, offset, detail)
        self.reason = reason

    def __str__(self) -> str:
        reason, path, offset, detail = self.args
        return f"{reason} at byte {offset} of {path}: {detail}"


def as_fields(values: list[str]) -> Fields:
    """Values of WARC_FIELDS, in that order."""
    url, date, digest, truncated, identified = values
    return url, date, digest, truncated, identified


def is_http(url: str) -> bool:
    """False for dns:, ftp: and others that crawlers store as responses too; True where no scheme is seen."""
    return not _OTHER_URL.match(url)


def build_record(fields: Fields, block: bytes, offset: int, length: int, limits: WarcLimits) -> Record:
    """The record of a response's WARC fields and stored block.

    Raises BadMessage: missing_url, bad_url, missing_date, bad_date, and those of http_message.
    """
    url, timestamp, digest, truncated, identified = fields
    url = clean_url(url)
    if not _HTTP_URL.match(url):
        raise BadMessage("bad_url" if url else "missing_url", repr(url[:200]))
    if not _DATE.fullmatch(timestamp):
        raise BadMessage("bad_date" if timestamp else "missing_date", f"{timestamp[:40]!r} of {url[:200]}")
    status, headers, stored = split_message(block)
    payload, whole = decode_body(headers, stored, limits.max_payload)
    if not truncated and not whole:
        truncated = "unspecified"
    elif not truncated and len(stored) == UNMARKED_CUT:
        truncated = "length"
    kind = header(headers, "Content-Type") or identified
    return Record(
        url=url,
        timestamp=timestamp,
        offset=offset,
        length=length,
        digest=digest,
        status=status,
        headers=headers,
        content_type=kind.partition(";")[0].strip().lower(),
        payload=payload,
        truncated=truncated,
    )


def clean_url(url: str) -> str:
    """Wget wrote <…> around URLs for a while, and some crawlers left spaces in."""
    url = url.strip()
    if url[:1] == "<" and url[-1:] == ">":
        url = url[1:-1]
    return url.replace(" ", "%20")
