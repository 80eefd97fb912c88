"""WARC files read: all responses of a stream, in order. Damage is reported, never fatal."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from fastwarc.stream_io import GzipReader
from fastwarc.warc import ArchiveIterator, WarcHeader, WarcRecord, WarcRecordType

from mmc4_builder.http_message import BadMessage
from mmc4_builder.transport import ByteStream
from mmc4_builder.warc_members import Frames, GzipFrames, Member, PlainFrames, Window
from mmc4_builder.warc_record import (
    BadRecord,
    Fields,
    Record,
    WarcError,
    WarcLimits,
    as_fields,
    build_record,
    clean_url,
    is_http,
)
from mmc4_builder.warc_single import read_record
from mmc4_builder.warc_write import Place, Response, write_warc

__all__ = [
    "BadRecord",
    "Place",
    "Record",
    "Response",
    "WarcError",
    "WarcLimits",
    "read_record",
    "read_records",
    "write_warc",
]

REFUSED = {  # first bytes of a file: reason, remedy
    b"\x28\xb5\x2f\xfd": ("zstd_not_supported", "unpack it with `zstd -d`; a plain WARC file can be read"),
    b"BZh": ("bzip2_not_supported", "unpack it with `bunzip2`; a plain WARC file can be read"),
}
KNOWN = (
    WarcRecordType.warcinfo
    | WarcRecordType.response
    | WarcRecordType.resource
    | WarcRecordType.request
    | WarcRecordType.metadata
    | WarcRecordType.revisit
    | WarcRecordType.conversion
    | WarcRecordType.continuation
)
FIELD_KEYS = (  # warc_record.WARC_FIELDS; six times as fast to look up as names
    WarcHeader.WARC_TARGET_URI,
    WarcHeader.WARC_DATE,
    WarcHeader.WARC_PAYLOAD_DIGEST,
    WarcHeader.WARC_TRUNCATED,
    WarcHeader.WARC_IDENTIFIED_PAYLOAD_TYPE,
)
DETAILS = {
    "not_record_compressed": "one gzip member holds several records; `warcio recompress IN OUT` mends it",
    "bad_content_length": "the record does not fit its frame",
}


def read_records(stream: ByteStream, path: str, *, limits: WarcLimits | None = None) -> Iterator[Record | BadRecord]:
    """Every HTTP response from where `stream` stands, in order; other kinds of records are passed by.

    A record that cannot be used, and each damaged stretch, gives one BadRecord; reading goes on at the next
    sound record. Memory is bounded by `limits`. Errors of the stream itself (TransportError, OSError) are
    raised.
    """
    limits = limits or WarcLimits()
    window = Window(stream, limits.max_stored)
    start = window.tell()
    magic = window.peek(start, 4)
    refused = [refusal for mark, refusal in REFUSED.items() if magic.startswith(mark)]
    if not magic:
        refused = [("empty_file", "no bytes at all")]
    for reason, remedy in refused:
        yield BadRecord(reason=reason, path=path, offset=start, detail=remedy)
        return
    # a file whose first bytes are damaged goes by its name
    gzip = magic.startswith(b"\x1f\x8b") or (magic != b"WARC" and path.lower().endswith(".gz"))
    yield from _Reader(window, path, limits, gzip=gzip).records(start)


def _text(value: bytes | None) -> str:
    """A WARC header is UTF-8; what is not is read as warcio does."""
    try:
        return (value or b"").decode()
    except UnicodeDecodeError:
        return (value or b"").decode("latin-1")


@dataclass(frozen=True, slots=True)
class _Held:
    """The record last read. It is handed out when its end is known: where the next one begins."""

    offset: int
    fields: Fields | None = None  # None: a kind of record that is passed by
    block: bytes = b""
    fault: str = ""
    detail: str = ""
    doubt: bool = False  # its frame must be looked at before it is believed


class _Reader:
    """FastWARC reads; where it stops, for whatever reason, the frames tell what is sound.

    A record is lost only where its own bytes are damaged, and never without a BadRecord.
    """

    def __init__(self, window: Window, path: str, limits: WarcLimits, *, gzip: bool) -> None:
        self._window = window
        self._path = path
        self._limits = limits
        self._gzip = gzip
        self._frames: Frames = GzipFrames(window) if gzip else PlainFrames(window)

    def records(self, start: int) -> Iterator[Record | BadRecord]:
        at: int | None = start
        while at is not None:
            at = yield from self._settle(at)
            if at is not None:
                at = yield from self._run(at)

    def _settle(self, at: int | None) -> Generator[BadRecord, None, int | None]:
        """The next sound frame that starts like a record, from `at` on; None at the end of the file."""
        while at is not None and self._window.peek(at, 1):
            self._window.release(at)
            member = self._frames.measure(at)
            if member.is_record and not member.fault:
                return at
            if member.fault:
                at = yield from self._lose(at, member)
                continue
            if not member.blank:
                yield self._bad("bad_warc_header", at, self._look(at, member.head))
            at = member.end
        return None

    def _lose(self, at: int, member: Member) -> Generator[BadRecord, None, int | None]:
        """Report a faulty frame; where the next record begins. A file is cut only if nothing follows."""
        look = self._look(at, member.head)
        following = self._frames.find_next(at + 1)
        cut = member.fault == "truncated_file" and following is not None
        yield self._bad(self._frames.torn if cut else member.fault, at, look)
        return following

    def _run(self, at: int) -> Generator[Record | BadRecord, None, int | None]:
        """Records from `at` on, until FastWARC stops or one is doubtful; then where to look further."""
        self._window.seek(at)
        source = GzipReader(self._window) if self._gzip else self._window
        held: _Held | None = None
        try:
            for raw in ArchiveIterator(source, parse_http=False, max_header_len=self._limits.max_warc_header):
                offset = raw.stream_pos if isinstance(source, Window) else source.frame_start_position()
                if held is not None and held.offset == offset:
                    held = _Held(offset, fault="not_record_compressed", doubt=True)
                    break
                if held is not None:
                    yield from self._finish(held, offset - held.offset)
                self._window.release(offset)
                held = _Held(offset, fault="unreadable_record", doubt=True)  # stands if reading fails
                held = self._take(raw, offset)
                if held.doubt or (not isinstance(source, Window) and source.frame_start_position() != offset):
                    break
        except OSError:
            if self._window.failure:
                raise
        return (yield from self._conclude(held, at))

    def _take(self, raw: WarcRecord, offset: int) -> _Held:
        """Read a record's block, unless it is of a kind that is passed by or too large."""
        kind = raw.record_type
        # FastWARC knows types by the header's usual spelling only
        name = "" if kind & KNOWN else (raw.headers.get("WARC-Type") or "").lower()
        response = kind == WarcRecordType.response or name == "response"
        size = raw.content_length
        if size > self._limits.max_block:
            fault = "record_too_large" if response else ""
            return _Held(offset, fault=fault, detail=f"{size} bytes", doubt=True)
        if not response:
            raw.consume()
            return _Held(offset, fault="" if kind & KNOWN or name else "missing_warc_type")
        get = raw.headers.get_bytes
        fields = as_fields([_text(get(key)) for key in FIELD_KEYS])
        block = raw.reader.read(size)
        # no length, or one that FastWARC could not read, counts as 0
        return _Held(offset, fields, block, doubt=len(block) != size or size == 0)

    def _conclude(self, held: _Held | None, at: int) -> Generator[Record | BadRecord, None, int | None]:
        """Judge the last record by its frame, and say where to look further."""
        last = at if held is None else held.offset
        member = self._frames.measure(last)
        if member.fault:
            return (yield from self._lose(last, member))
        if held is None:
            yield self._bad("bad_warc_header", last, self._look(last, member.head))
        elif held.fault != "not_record_compressed" and not member.holds_one_record():
            yield self._bad("bad_content_length", last)
        else:
            yield from self._finish(held, member.end - last)
        return member.end

    def _finish(self, held: _Held, length: int) -> Iterator[Record | BadRecord]:
        if held.fault:
            yield self._bad(held.fault, held.offset, held.detail)
        elif held.fields is not None and is_http(clean_url(held.fields[0])):
            try:
                yield build_record(held.fields, held.block, held.offset, length, self._limits)
            except BadMessage as error:
                yield self._bad(error.reason, held.offset, error.detail)

    def _look(self, offset: int, head: bytes) -> str:
        """What a person wants to see of a damaged place: its first bytes, unpacked where that is possible."""
        return f"starts with {head[:40] or self._window.peek(offset, 16)!r}"

    def _bad(self, reason: str, offset: int, detail: str = "") -> BadRecord:
        detail = detail or DETAILS.get(reason, "")
        return BadRecord(reason=reason, path=self._path, offset=offset, detail=detail)
