"""Every response comes out as it went in; what is damaged is reported, and costs no other record."""

import gzip
import io
import random
import re
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Fault, serve
from warcio.archiveiterator import ArchiveIterator as WarcioIterator

from mmc4_builder.transport import RetryPolicy, Unreachable, open_stream
from mmc4_builder.warc import (
    BadRecord,
    Place,
    Record,
    Response,
    WarcError,
    WarcLimits,
    read_record,
    read_records,
    write_warc,
)

TIME = "2024-05-18T01:58:10Z"
HTML = (("Content-Type", "Text/HTML; charset=utf-8"), ("X-Robots-Tag", "noai"))


def page(number: int, size: int = 400) -> Response:
    body = "".join(random.Random(number).choices("abcdefgh <>\n", k=size))
    return Response(url=f"https://example.org/{number}", timestamp=TIME, payload=body.encode(), headers=HTML)


PAGES = [page(number) for number in range(5)]


def packed(responses: list[Response], *, gzip: bool = True) -> tuple[bytes, tuple[Place, ...]]:
    stream = io.BytesIO()
    places = write_warc(stream, responses, filename="x.warc.gz", gzip=gzip)
    return stream.getvalue(), places


DATA, PLACES = packed(PAGES)
PLAIN, PLAIN_PLACES = packed(PAGES, gzip=False)
MEMBERS = [gzip.decompress(DATA[place.offset : place.offset + place.length]) for place in PLACES]
HEAD = DATA[: PLACES[0].offset]


def parse(data: bytes, limits: WarcLimits | None = None) -> list[Record | BadRecord]:
    return list(read_records(io.BytesIO(data), "x.warc.gz", limits=limits))


def outline(found: list[Record | BadRecord]) -> list[str]:
    """Page numbers and reasons, in order."""
    return [item.url[-1] if isinstance(item, Record) else item.reason for item in found]


def repacked(changes: dict[int, bytes]) -> bytes:
    """The file with some records' unpacked bytes replaced."""
    members = [changes.get(number, member) for number, member in enumerate(MEMBERS)]
    return HEAD + b"".join(gzip.compress(member, mtime=0) for member in members)


def swap(pattern: bytes, by: bytes) -> bytes:
    """Record 2 with the first match of a pattern replaced."""
    changed, count = re.subn(pattern, by.replace(b"\\", rb"\\"), MEMBERS[2], count=1)
    assert count == 1
    return changed


# --- writing


def test_writing_is_deterministic(tmp_path: Path) -> None:
    write_warc(str(tmp_path / "a"), PAGES, filename="x.warc.gz")
    assert (tmp_path / "a").read_bytes() == DATA
    assert packed(PAGES)[0] == DATA
    other = io.BytesIO()
    write_warc(other, PAGES, filename="y.warc.gz")
    assert other.getvalue() != DATA


def test_places_are_whole_gzip_members() -> None:
    assert all(member.startswith(b"WARC/1.0\r\nWARC-Type: response") for member in MEMBERS)
    assert PLACES[-1].offset + PLACES[-1].length == len(DATA)
    assert HEAD and gzip.decompress(HEAD).startswith(b"WARC/1.0\r\nWARC-Type: warcinfo")


def test_what_is_written_suits_warcio() -> None:
    records = list(WarcioIterator(io.BytesIO(DATA), check_digests="raise"))
    assert [record.rec_type for record in records] == ["warcinfo"] + ["response"] * 5
    ids = [record.rec_headers.get_header("WARC-Record-ID") for record in records]
    assert len(set(ids)) == 6
    assert all(re.fullmatch(r"<urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}>", value) for value in ids)
    assert records[1].rec_headers.get_header("WARC-Warcinfo-ID") == ids[0]


def test_headers_that_are_given_stay() -> None:
    response = replace(PAGES[0], status=299, record_id="<urn:uuid:1>", truncated="time", headers=())
    text = gzip.decompress(packed([response])[0])
    assert b"HTTP/1.1 299 Unknown\r\nContent-Length: 400\r\n\r\n" in text
    assert b"<urn:uuid:1>" in text and b"WARC-Truncated: time" in text
    chunked = replace(PAGES[0], headers=(("Transfer-Encoding", "chunked"),))
    assert b"chunked\r\n\r\n" in gzip.decompress(packed([chunked])[0])


def test_a_file_without_responses() -> None:
    data, places = packed([])
    assert places == () and parse(data) == []
    assert b"WARC-Date: 1970-01-01T00:00:00Z" in gzip.decompress(data)


# --- reading sound files


@pytest.mark.parametrize(("data", "places"), [(DATA, PLACES), (PLAIN, PLAIN_PLACES)])
def test_what_was_written_is_read(data: bytes, places: tuple[Place, ...]) -> None:
    found = parse(data)
    assert [(record.offset, record.length) for record in found if isinstance(record, Record)] == [
        (place.offset, place.length) for place in places
    ]
    for record, response in zip(found, PAGES, strict=True):
        assert isinstance(record, Record)
        assert (record.url, record.timestamp, record.payload) == (response.url, TIME, response.payload)
        assert (record.status, record.content_type, record.truncated) == (200, "text/html", "")
        assert record.header("x-robots-tag") == "noai" and record.header("nothing") == ""
        assert re.fullmatch("sha1:[A-Z2-7]{32}", record.digest)


@pytest.mark.parametrize("kind", ["warcinfo", "request", "metadata", "revisit", "resource", "conversion", "strange"])
def test_other_kinds_are_passed_by(kind: str) -> None:
    found = parse(repacked({2: swap(rb"WARC-Type: response", b"WARC-Type: " + kind.encode())}))
    assert outline(found) == ["0", "1", "3", "4"]
    assert isinstance(found[1], Record) and found[1].length == len(gzip.compress(MEMBERS[1]))


@pytest.mark.parametrize("url", ["dns:example.org", "ftp://example.org/x", "urn:pageinfo:x"])
def test_responses_that_are_not_http_are_passed_by(url: str) -> None:
    changed = swap(rb"https://example.org/2", url.encode())
    assert outline(parse(repacked({2: changed}))) == ["0", "1", "3", "4"]


@pytest.mark.parametrize(
    ("pattern", "by"),
    [
        (rb"https://example.org/2", b"<https://example.org/2>"),
        (rb"https://example.org/2", b"HTTP://example.org/a b/2"),
        (rb"WARC-Target-URI", b"warc-target-uri"),
        (rb"WARC-Type: response", b"warc-type: response"),
        (rb"WARC-Date: .*?Z", b"WARC-Date: 2024-05-18T01:58:10.123456Z"),
        (rb"WARC/1.0", b"WARC/1.1"),
        (rb"(?<=\r\n\r\n)HTTP/1.1 200 OK", b"HTTP/2 200 Nice"),
        (rb"\r\n\r\n$", b"\r\n"),
        (rb"\r\n\r\n$", b""),
    ],
)
def test_small_liberties_are_taken(pattern: bytes, by: bytes) -> None:
    assert outline(parse(repacked({2: swap(pattern, by)}))) == ["0", "1", "2", "3", "4"]


def test_a_page_cut_at_one_mebibyte_without_a_mark() -> None:
    cut = [replace(PAGES[0], payload=b"x" * size, truncated=mark) for size, mark in ((1 << 20, ""), (99, "time"))]
    assert [record.truncated for record in parse(packed(cut)[0]) if isinstance(record, Record)] == [
        "length",
        "time",
    ]


def test_codings_are_undone() -> None:
    body = gzip.compress(b"hello " * 50)
    stored = replace(PAGES[0], payload=body, headers=(("Content-Encoding", "gzip"),))
    (record,) = parse(packed([stored])[0])
    assert isinstance(record, Record) and record.payload == b"hello " * 50


def test_a_bomb_is_refused() -> None:
    bomb = replace(PAGES[0], payload=gzip.compress(bytes(50 << 20)), headers=(("Content-Encoding", "gzip"),))
    tracemalloc.start()
    found = parse(packed([bomb, PAGES[1]])[0], WarcLimits(max_payload=1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outline(found) == ["payload_too_large", "1"]
    assert peak < 8 << 20


@pytest.mark.parametrize("compress", [True, False])
def test_a_large_record_is_passed_by_in_little_memory(compress: bool) -> None:
    data, _ = packed([PAGES[0], replace(PAGES[1], payload=bytes(40 << 20)), PAGES[2]], gzip=compress)
    tracemalloc.start()
    found = parse(data, WarcLimits(max_payload=1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outline(found) == ["0", "record_too_large", "2"]
    assert peak < 12 << 20


def test_a_large_record_of_another_kind_is_no_loss() -> None:
    large = swap(rb"WARC-Type: response", b"WARC-Type: resource")
    assert outline(parse(repacked({2: large}), WarcLimits(max_payload=430))) == ["0", "1", "3", "4"]


# --- damage to one record


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (swap(rb"Content-Length: \d+", b"Content-Length: 10"), "bad_content_length"),
        (swap(rb"Content-Length: \d+", b"Content-Length: 99999"), "bad_content_length"),
        (swap(rb"Content-Length: \d+", b"Content-Length: 0"), "bad_content_length"),
        (swap(rb"Content-Length: \d+", b"Content-Length: -5"), "bad_content_length"),
        (swap(rb"Content-Length: \d+", b"Content-Length: many"), "bad_content_length"),
        (swap(rb"Content-Length: \d+", b"Content-Length: " + b"9" * 12), "bad_content_length"),
        (swap(rb"Content-Length: \d+", b"Content-Length: " + b"9" * 40), "bad_content_length"),
        (swap(rb"Content-Length: \d+\r\n", b""), "bad_content_length"),
        (swap(rb"WARC-Target-URI: .*?\r\n", b""), "missing_url"),
        (swap(rb"https://example.org/2", b"example.org"), "bad_url"),
        (swap(rb"https://example.org/2", b"https:///x"), "bad_url"),
        (swap(rb"WARC-Date: .*?\r\n", b""), "missing_date"),
        (swap(rb"WARC-Date: .*?\r\n", b"WARC-Date: yesterday\r\n"), "bad_date"),
        (swap(rb"WARC-Type: .*?\r\n", b""), "missing_warc_type"),
        (swap(rb"WARC-Date", b"X-Big: " + b"a" * 100_000 + b"\r\nWARC-Date"), "bad_warc_header"),
        (b"WARC/1.0\r\n" + b"a" * 1_000_000, "bad_warc_header"),
        (b"WARC/1.0\r\n\r\n", "missing_warc_type"),
        (b"hello\r\n\r\n", "bad_warc_header"),
        (swap(rb"HTTP/1.1 200 OK", b"http 200 is ok!"), "no_http_header"),
        (swap(rb"HTTP/1.1 200 OK", b"HTTP/1.1 2000 O"), "no_http_header"),
        (
            swap(rb"HTTP/1.1 200 OK(?s:.)*", b"HTTP/1.1 200 OK\r\n").replace(b": 500", b": 17"),
            "bad_http_header",
        ),
        (b"".join(MEMBERS[2:4]), "not_record_compressed"),
        (MEMBERS[2] + b"left over", "bad_content_length"),
    ],
)
def test_a_damaged_record_costs_only_itself(changed: bytes, reason: str) -> None:
    found = parse(repacked({2: changed}))
    assert outline(found) == ["0", "1", reason, "3", "4"]
    bad = found[2]
    assert isinstance(bad, BadRecord)
    assert bad.path == "x.warc.gz"
    assert bad.offset == len(HEAD) + sum(len(gzip.compress(member)) for member in MEMBERS[:2])


def test_a_length_that_swallows_whole_records_is_noticed() -> None:
    length = int(re.findall(rb"Content-Length: (\d+)", MEMBERS[2])[0])
    greedy = swap(rb"Content-Length: \d+", b"Content-Length: %d" % (length + len(MEMBERS[3])))
    assert outline(parse(repacked({2: greedy}))) == ["0", "1", "bad_content_length", "3", "4"]


def test_an_http_header_without_end() -> None:
    endless = replace(PAGES[2], headers=(("X", "y" * 100_000),))
    assert outline(parse(packed([PAGES[0], endless, PAGES[1]])[0])) == ["0", "http_header_too_large", "1"]


# --- damage to the file

CUT = PLACES[2].offset


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ["empty_file"]),
        (b"<html>503 Slow Down</html>", ["garbage"]),
        (random.Random(1).randbytes(5000), ["garbage"]),
        (b"\x1f\x8b", ["truncated_file"]),
        (b"\x28\xb5\x2f\xfd" + bytes(50), ["zstd_not_supported"]),
        (b"BZh9" + bytes(50), ["bzip2_not_supported"]),
        (DATA[: CUT + 100], ["0", "1", "truncated_file"]),
        (DATA[: CUT + 3], ["0", "1", "truncated_file"]),
        (DATA[: CUT + 1], ["0", "1", "truncated_file"]),
        (DATA[:-1], ["0", "1", "2", "3", "truncated_file"]),
        (DATA[:CUT], ["0", "1"]),
        (DATA[:CUT] + b"garbage\n" * 10 + DATA[CUT:], ["0", "1", "garbage", "2", "3", "4"]),
        (DATA[:CUT] + bytes(300_000) + DATA[CUT:], ["0", "1", "garbage", "2", "3", "4"]),
        (DATA[:CUT] + b"\x1f\x8b\x08" * 9 + DATA[CUT:], ["0", "1", "corrupt_gzip", "2", "3", "4"]),
        (DATA[:CUT] + DATA[CUT + 1 :], ["0", "1", "garbage", "3", "4"]),
        (DATA[:CUT] + gzip.compress(b"", mtime=0) + DATA[CUT:], ["0", "1", "2", "3", "4"]),
        (DATA[:CUT] + gzip.compress(b"\r\n\r\n", mtime=0) + DATA[CUT:], ["0", "1", "2", "3", "4"]),
        (DATA + bytes(20), ["0", "1", "2", "3", "4", "garbage"]),
        (DATA + DATA, ["0", "1", "2", "3", "4", "0", "1", "2", "3", "4"]),
        (DATA[PLACES[1].offset + 50 :], ["garbage", "2", "3", "4"]),
        (gzip.compress(PLAIN, mtime=0), ["not_record_compressed"]),
        (PLAIN[: PLAIN_PLACES[2].offset + 700], ["0", "1", "truncated_file"]),
        (PLAIN[: PLAIN_PLACES[2].offset + 40], ["0", "1", "corrupt_record"]),
        (
            PLAIN.replace(b"Content-Length: 500", b"Content-Length: 77", 1),
            ["bad_content_length", "1", "2", "3", "4"],
        ),
        (
            PLAIN.replace(b"Content-Length: 500", b"Content-Length: 99999", 1),
            ["bad_content_length", "1", "2", "3", "4"],
        ),
        (
            PLAIN.replace(b"Content-Length: 500", b"Content-Length: x", 1),
            ["bad_content_length", "1", "2", "3", "4"],
        ),
        (
            PLAIN[: PLAIN_PLACES[2].offset] + b"garbage\n" * 10 + PLAIN[PLAIN_PLACES[2].offset :],
            ["0", "bad_content_length", "2", "3", "4"],
        ),
    ],
)
def test_a_damaged_file_is_read_as_far_as_it_goes(data: bytes, expected: list[str]) -> None:
    assert outline(parse(data)) == expected


@settings(max_examples=150)
@given(
    victim=st.integers(0, 4),
    place=st.floats(0, 1, exclude_max=True),
    remove=st.integers(0, 60),
    insert=st.binary(max_size=60),
)
def test_damage_never_spreads(victim: int, place: float, remove: int, insert: bytes) -> None:
    """Whatever happens inside one member, the others come out as they went in."""
    start, length = PLACES[victim].offset, PLACES[victim].length
    at = start + int(place * length)
    data = DATA[:at] + insert + DATA[min(at + remove, start + length) :]
    found = [(record.url, record.payload) for record in parse(data) if isinstance(record, Record)]
    others = [(response.url, response.payload) for number, response in enumerate(PAGES) if number != victim]
    assert [item for item in found if item in others] == others


@settings(max_examples=150)
@given(st.data())
def test_no_bytes_are_fatal(data: st.DataObject) -> None:
    """Records with any bytes in any place: an answer, and offsets that make sense."""
    member = bytearray(MEMBERS[2])
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(member)))
        member[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    for blob in (repacked({2: bytes(member)}), b"".join([*MEMBERS[:2], bytes(member), *MEMBERS[3:]])):
        found = parse(blob)
        offsets = [item.offset for item in found]
        assert offsets == sorted(offsets)
        assert all(0 <= item.offset <= len(blob) for item in found)
        assert outline(found)[:1] == ["0"]


def test_a_stream_that_starts_in_the_middle() -> None:
    stream = io.BytesIO(DATA)
    stream.seek(PLACES[3].offset)
    found = list(read_records(stream, "x"))
    assert [item.offset for item in found] == [PLACES[3].offset, PLACES[4].offset]


# --- one record


@pytest.mark.parametrize("source", ["file", "server"])
def test_one_record_is_the_same_as_in_the_stream(tmp_path: Path, source: str) -> None:
    (tmp_path / "x.warc.gz").write_bytes(DATA)
    with serve(tmp_path) as server:
        path = str(tmp_path / "x.warc.gz") if source == "file" else server.url("x.warc.gz")
        for record in parse(DATA):
            assert read_record(path, record.offset, PLACES[int(record.url[-1])].length) == record  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda member: b"nonsense", "bad_warc_header"),
        (lambda member: b"", "bad_warc_header"),
        (lambda member: b"http://x 1.2.3.4 20240101000000 text/html 5\nhello", "bad_warc_header"),
        (lambda member: member.replace(b"Type: response", b"Type: request"), "not_a_response"),
        (
            lambda member: re.sub(rb"Content-Length: \d+", b"Content-Length: 9999", member, count=1),
            "bad_content_length",
        ),
        (
            lambda member: re.sub(rb"Content-Length: \d+", b"Content-Length: -1", member, count=1),
            "bad_content_length",
        ),
        (
            lambda member: re.sub(rb"Content-Length: \d+", b"Content-Length: 99999999", member, count=1),
            "record_too_large",
        ),
        (lambda member: member.replace(b"https://example.org/2", b"dns:example.org"), "not_http"),
        (lambda member: member.replace(b"WARC-Date", b"X-Date"), "missing_date"),
    ],
)
def test_one_record_that_cannot_be_used(tmp_path: Path, change: Callable[[bytes], bytes], reason: str) -> None:
    data = gzip.compress(change(MEMBERS[2]))
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(WarcError, match=f"{reason} at byte 0 of") as caught:
        read_record(str(tmp_path / "x"), 0, len(data))
    assert caught.value.reason == reason


def test_one_record_that_is_damaged_or_huge(tmp_path: Path) -> None:
    data = zlib.compress(MEMBERS[2])
    (tmp_path / "x").write_bytes(data + DATA[CUT : CUT + 200])
    with pytest.raises(WarcError, match="bad_warc_header"):
        read_record(str(tmp_path / "x"), 0, len(data))
    with pytest.raises(WarcError, match="bad_content_length"):
        read_record(str(tmp_path / "x"), len(data), 200)
    with pytest.raises(WarcError, match="record_too_large"):
        read_record(str(tmp_path / "x"), 0, 1 << 30)


# --- over the network


def test_a_broken_download_gives_the_same_records(tmp_path: Path) -> None:
    pages = [page(number % 10, 60_000) for number in range(30)]
    data, _ = packed(pages)
    (tmp_path / "x.warc.gz").write_bytes(data)
    with serve(tmp_path) as server:
        server.fail("x.warc.gz", Fault(times=None, cut_after=150_000))
        with open_stream(server.url("x.warc.gz"), retry=RetryPolicy(sleep=lambda _: None)) as stream:
            assert list(read_records(stream, "x.warc.gz")) == parse(data)
        assert len(server.requests) > 5


def test_a_download_that_fails_is_no_bad_record(tmp_path: Path) -> None:
    data, _ = packed([page(number, 60_000) for number in range(10)])
    (tmp_path / "x.warc.gz").write_bytes(data)
    with serve(tmp_path) as server:
        server.fail("x.warc.gz", Fault(cut_after=100_000), Fault(times=None, status=503))
        retry = RetryPolicy(tries=2, sleep=lambda _: None)
        with open_stream(server.url("x.warc.gz"), retry=retry) as stream:
            records = read_records(stream, "x.warc.gz")
            assert isinstance(next(records), Record)
            with pytest.raises(Unreachable):
                list(records)


def test_real_pages(manuals: Path) -> None:
    with open(manuals, "rb") as stream:
        found = list(read_records(stream, str(manuals)))
    assert len(found) == 563 and all(isinstance(item, Record) for item in found)
    picked = found[::97]
    assert [
        read_record(str(manuals), item.offset, item.length) for item in picked if isinstance(item, Record)
    ] == picked


def test_limits_are_validated() -> None:
    with pytest.raises(ValueError, match="max_payload=0"):
        WarcLimits(max_payload=0)
