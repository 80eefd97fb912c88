"""WARC files written the way Common Crawl lays them out, and the same bytes every time."""

import hashlib
import io
import uuid
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import BinaryIO

from warcio.recordloader import ArcWarcRecord
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

CRAWL_INFO: Mapping[str, str] = {"software": "mmc4-build", "format": "WARC File Format 1.1"}
EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One HTTP response to be written. `payload` is stored as it is: no coding is added or removed."""

    url: str
    timestamp: str  # WARC-Date, e.g. 2024-05-18T01:58:10Z
    payload: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    record_id: str = ""  # <urn:uuid:…>; derived from file name, place and URL when empty
    truncated: str = ""  # WARC-Truncated: length, time, disconnect or unspecified


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a written record lies: `length` bytes from `offset` are one whole gzip member."""

    offset: int
    length: int


def write_warc(
    target: str | BinaryIO,
    records: Iterable[Response],
    *,
    filename: str,
    info: Mapping[str, str] = CRAWL_INFO,
    gzip: bool = True,
) -> tuple[Place, ...]:
    """Write a warcinfo and one response record for each of `records`; return where each response lies.

    The same arguments give the same bytes: ids come from the file name, the record's place and its URL, and
    the warcinfo carries the first record's time. A Content-Length that the headers lack is added, as the
    crawl does, unless the payload is still chunked.
    """
    with open(target, "wb") if isinstance(target, str) else nullcontext(target) as stream:
        counted = _Counted(stream)
        writer = WARCWriter(counted, gzip=gzip)
        places: list[Place] = []
        warcinfo_id = _record_id(filename, "warcinfo")
        for index, response in enumerate(records):
            if index == 0:
                writer.write_record(_warcinfo(writer, filename, warcinfo_id, response.timestamp, info))
            offset = counted.written
            writer.write_record(_response(writer, response, filename, index, warcinfo_id))
            places.append(Place(offset=offset, length=counted.written - offset))
        if not places:
            writer.write_record(_warcinfo(writer, filename, warcinfo_id, EPOCH, info))
    return tuple(places)


@dataclass(slots=True)
class _Counted:
    """What warcio writes to: it tells how many bytes went through, so `stream` need not be seekable."""

    stream: BinaryIO
    written: int = field(default=0)

    def write(self, data: bytes) -> int:
        self.stream.write(data)
        self.written += len(data)
        return len(data)

    def flush(self) -> None:
        self.stream.flush()


def _record_id(*parts: str) -> str:
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).digest()
    return f"<urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}>"


def _warcinfo(
    writer: WARCWriter, filename: str, record_id: str, timestamp: str, info: Mapping[str, str]
) -> ArcWarcRecord:
    """Built by hand: warcio's own helper would put in the wall clock and a random id."""
    body = "".join(f"{name}: {value}\r\n" for name, value in info.items()).encode()
    headers = {
        "WARC-Type": "warcinfo",
        "WARC-Date": timestamp,
        "WARC-Record-ID": record_id,
        "WARC-Filename": filename,
    }
    return writer.create_warc_record(
        "", "warcinfo", payload=io.BytesIO(body), length=len(body), warc_headers_dict=headers
    )


def _response(writer: WARCWriter, response: Response, filename: str, index: int, warcinfo_id: str) -> ArcWarcRecord:
    headers = {
        "WARC-Type": "response",
        "WARC-Date": response.timestamp,
        "WARC-Record-ID": response.record_id or _record_id(filename, str(index), response.url),
        "WARC-Warcinfo-ID": warcinfo_id,
        "WARC-Target-URI": response.url,
    }
    if response.truncated:
        headers["WARC-Truncated"] = response.truncated
    return writer.create_warc_record(
        response.url,
        "response",
        payload=io.BytesIO(response.payload),
        length=len(response.payload),
        warc_headers_dict=headers,
        http_headers=StatusAndHeaders(_status_line(response.status), _http_headers(response), "HTTP/1.1"),
    )


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


def _http_headers(response: Response) -> list[tuple[str, str]]:
    names = {name.lower() for name, _ in response.headers}
    length = [("Content-Length", str(len(response.payload)))]
    return [*response.headers, *([] if names & {"content-length", "transfer-encoding"} else length)]
