"""Stored HTTP responses taken apart: what is encoded is decoded, what only says so is left alone."""

import gzip
import zlib

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmc4_builder.http_message import BadMessage, decode_body, header, split_message


def packed(data: bytes) -> bytes:
    """The same on every run: test names hold some of these bytes, and runs side by side must agree on them."""
    return gzip.compress(data, mtime=0)


TEXT = b"<p>A page with some words, " + b"and more words " * 40 + b"</p>"
RAW_DEFLATE = zlib.compressobj(wbits=-15)
DEFLATED = RAW_DEFLATE.compress(TEXT) + RAW_DEFLATE.flush()


def chunked(body: bytes, size: int = 100, extension: bytes = b"") -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in [*pieces, b""])


@pytest.mark.parametrize(
    ("block", "status", "headers", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody", 200, (("A", "b"),), b"body"),
        (b"HTTP/1.0 404\r\n\r\n", 404, (), b""),
        (b"HTTP/2 301 \nA: b\n\nbody\r\n\r\nmore", 301, (("A", "b"),), b"body\r\n\r\nmore"),
        (b"HTTP/1.1 200 OK\r\n\r\n\n\nbody", 200, (), b"\n\nbody"),
        (b"HTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\n\r\n", 200, (("A", "1"), ("a", "2")), b""),
        (b"HTTP/1.1 200 OK\r\nA: 1,\r\n  2,\r\n\t3\r\n\r\n", 200, (("A", "1, 2, 3"),), b""),
        (
            b"HTTP/1.1 200 OK\r\nno colon\r\n: no name\r\nA:\r\nB:x:y\r\n\r\n",
            200,
            (("A", ""), ("B", "x:y")),
            b"",
        ),
        (b"HTTP/1.1 200 \xfc\r\nA: \xe9\x85\r\n\r\n", 200, (("A", "é"),), b""),
        (b"HTTP/1.1 200 OK\r\nA: b\x0bc\x1cd\r\n\r\n", 200, (("A", "b\x0bc\x1cd"),), b""),
    ],
)
def test_messages(block: bytes, status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
    assert split_message(block) == (status, headers, body)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (b"", "no_http_header"),
        (b"<html>", "no_http_header"),
        (b"HTTP/1.1 abc\r\n\r\n", "no_http_header"),
        (b"HTTP/1.1 2000\r\n\r\n", "no_http_header"),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", "no_http_header"),
        (b"HTTP/1.1 200 OK\r\nA: b", "bad_http_header"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * (1 << 17) + b"\r\n\r\n", "http_header_too_large"),
    ],
)
def test_blocks_that_are_no_message(block: bytes, reason: str) -> None:
    with pytest.raises(BadMessage) as caught:
        split_message(block)
    assert caught.value.reason == reason


@given(st.binary(max_size=300))
def test_no_block_is_fatal(tail: bytes) -> None:
    try:
        status, headers, body = split_message(b"HTTP/1.1 200 OK\r\n" + tail)
    except BadMessage as error:
        assert error.reason == "bad_http_header"
    else:
        assert status == 200 and tail.endswith(body)


def test_the_first_header_counts() -> None:
    headers = (("Content-Type", "a"), ("content-type", "b"))
    assert header(headers, "CONTENT-TYPE") == "a"
    assert header(headers, "x") == ""


@pytest.mark.parametrize(
    ("headers", "stored"),
    [
        ({}, TEXT),
        ({"Content-Encoding": "gzip"}, packed(TEXT)),
        ({"Content-Encoding": "X-GZip"}, packed(TEXT)),
        ({"content-encoding": "deflate"}, zlib.compress(TEXT)),
        ({"Content-Encoding": "deflate"}, DEFLATED),
        ({"Content-Encoding": "br"}, brotli.compress(TEXT)),
        ({"Content-Encoding": "gzip, br"}, brotli.compress(packed(TEXT))),
        ({"Content-Encoding": " , gzip,"}, packed(TEXT)),
        ({"Transfer-Encoding": "chunked"}, chunked(TEXT)),
        ({"Transfer-Encoding": "gzip, Chunked"}, chunked(TEXT, 7, b";name=value")),
        ({"Transfer-Encoding": "chunked"}, chunked(TEXT).replace(b"\r\n", b"\n")),
        ({"Transfer-Encoding": "chunked"}, chunked(TEXT) + b"Trailer: x\r\n\r\n"),
        ({"Transfer-Encoding": "chunked", "Content-Encoding": "gzip"}, chunked(packed(TEXT), 9)),
        # headers that say more than the bytes do
        ({"Content-Encoding": "gzip"}, TEXT),
        ({"Content-Encoding": "deflate"}, TEXT),
        ({"Content-Encoding": "br"}, TEXT),
        ({"Content-Encoding": "zstd"}, TEXT),
        ({"Content-Encoding": "utf-8"}, TEXT),
        ({"Transfer-Encoding": "chunked"}, TEXT),
        ({"X-Crawler-content-encoding": "gzip", "X-Crawler-transfer-encoding": "chunked"}, TEXT),
        ({"Content-Length": "3"}, TEXT),
        ({"Content-Length": "999999"}, TEXT),
    ],
)
def test_bodies(headers: dict[str, str], stored: bytes) -> None:
    assert decode_body(tuple(headers.items()), stored, 10_000) == (TEXT, True)


@pytest.mark.parametrize(
    ("coding", "stored"),
    [
        ("gzip", packed(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", DEFLATED),
        ("br", brotli.compress(TEXT)),
    ],
)
def test_a_cut_body_gives_what_it_has(coding: str, stored: bytes) -> None:
    body, whole = decode_body((("Content-Encoding", coding),), stored[: len(stored) * 3 // 4], 10_000)
    assert not whole
    assert TEXT.startswith(body)


def test_a_cut_chunk_gives_what_it_has() -> None:
    headers = (("Transfer-Encoding", "chunked"),)
    assert decode_body(headers, chunked(TEXT)[:150], 10_000) == (TEXT[:140], False)
    assert decode_body(headers, b"5\r\nhello\r\n", 10_000) == (b"hello", False)
    assert decode_body(headers, b"5\r\nhello world", 10_000) == (b"5\r\nhello world", True)


@pytest.mark.parametrize(
    ("headers", "stored", "reason"),
    [
        ({}, bytes(10_001), "payload_too_large"),
        ({"Content-Encoding": "gzip"}, packed(bytes(10 << 20)), "payload_too_large"),
        ({"Content-Encoding": "deflate"}, zlib.compress(bytes(10 << 20)), "payload_too_large"),
        ({"Content-Encoding": "br"}, brotli.compress(bytes(10 << 20)), "payload_too_large"),
        (
            {"Content-Encoding": "gzip, gzip"},
            packed(packed(bytes(10 << 20))),
            "payload_too_large",
        ),
        ({"Content-Encoding": "gzip"}, packed(TEXT)[:10] + b"\xff" * 50, "bad_content_encoding"),
        ({"Content-Encoding": "gzip"}, packed(TEXT)[:-8] + bytes(8), "bad_content_encoding"),
        ({"Content-Encoding": "br"}, b"\x00\x01\x02" + bytes(range(200)), "bad_content_encoding"),
        ({"Content-Encoding": "zstd"}, b"\x28\xb5\x2f\xfd" + bytes(20), "unsupported_content_encoding"),
    ],
)
def test_bodies_that_cannot_be_used(headers: dict[str, str], stored: bytes, reason: str) -> None:
    with pytest.raises(BadMessage) as caught:
        decode_body(tuple(headers.items()), stored, 10_000)
    assert caught.value.reason == reason


@given(
    st.sampled_from(["gzip", "deflate", "br", "zstd", "gzip,br"]),
    st.sampled_from([b"", b"\x1f\x8b\x08\x00", b"\x78\x9c", b"\x1b", b"5\r\n"]),
    st.binary(max_size=200),
)
def test_no_body_is_fatal(coding: str, start: bytes, body: bytes) -> None:
    headers = (("Content-Encoding", coding), ("Transfer-Encoding", "chunked"))
    try:
        decoded, _ = decode_body(headers, start + body, 1000)
    except BadMessage as error:
        assert error.reason in {"payload_too_large", "bad_content_encoding", "unsupported_content_encoding"}
    else:
        assert len(decoded) <= 1000
