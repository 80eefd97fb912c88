"""One WARC record at a known offset, as an index or an earlier reading gave it."""

import io

import requests
from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed

from mmc4_builder.http_message import BadMessage
from mmc4_builder.transport import DEFAULT_RETRY, RetryPolicy, read_range
from mmc4_builder.warc_record import (
    WARC_FIELDS,
    Fields,
    Record,
    WarcError,
    WarcLimits,
    as_fields,
    build_record,
    clean_url,
    is_http,
)


def read_record(
    path: str,
    offset: int,
    length: int,
    *,
    limits: WarcLimits | None = None,
    retry: RetryPolicy = DEFAULT_RETRY,
    session: requests.Session | None = None,
) -> Record:
    """The one response that an index places at `offset`. Raises WarcError, or a TransportError."""
    limits = limits or WarcLimits()
    if length > limits.max_stored:
        raise WarcError("record_too_large", path, offset, f"{length} bytes as stored")
    stored = read_range(path, offset, length, retry=retry, session=session)
    try:
        fields, block = _open_with_warcio(stored, limits)
        if not is_http(clean_url(fields[0])):
            raise BadMessage("not_http", fields[0][:200])
        return build_record(fields, block, offset, length, limits)
    except BadMessage as error:
        raise WarcError(error.reason, path, offset, error.detail) from error


def _open_with_warcio(stored: bytes, limits: WarcLimits) -> tuple[Fields, bytes]:
    try:
        record = next(ArchiveIterator(io.BytesIO(stored), no_record_parse=True), None)
    except (ArchiveLoadFailed, EOFError) as error:
        raise BadMessage("bad_warc_header", str(error)[:200]) from error
    if record is None or record.format != "warc":
        raise BadMessage("bad_warc_header", repr(stored[:40]))
    if record.rec_type != "response":
        raise BadMessage("not_a_response", str(record.rec_type))
    declared = record.rec_headers.get_header("Content-Length", "")
    if not (declared.isascii() and declared.isdigit()):
        raise BadMessage("bad_content_length", repr(declared[:40]))
    if int(declared) > limits.max_block:
        raise BadMessage("record_too_large", f"{declared} bytes")
    block: bytes = record.raw_stream.read(int(declared))
    if len(block) < int(declared):
        raise BadMessage("bad_content_length", f"{declared} bytes declared, {len(block)} found")
    return as_fields([record.rec_headers.get_header(name, "") for name in WARC_FIELDS]), block
