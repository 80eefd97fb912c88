"""Reasons, waits, codings and headers, without a network."""

import gzip
import zlib

import pycurl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmc4_builder.fetch_rules import (
    KEPT_HEADERS,
    backoff,
    failure_reason,
    kept_headers,
    may_pass,
    parse_head,
    plain_body,
    retry_wait,
    speaks_of_host,
)


@pytest.mark.parametrize(
    ("code", "message", "has_headers", "reason"),
    [
        (pycurl.E_COULDNT_RESOLVE_HOST, "", False, "dns_failure"),
        (pycurl.E_COULDNT_CONNECT, "", False, "connect_failed"),
        (pycurl.E_SSL_CONNECT_ERROR, "", False, "tls_failed"),
        (pycurl.E_PEER_FAILED_VERIFICATION, "", False, "tls_failed"),
        (pycurl.E_OPERATION_TIMEDOUT, "Operation timed out after 9 ms", False, "timeout"),
        (pycurl.E_OPERATION_TIMEDOUT, "Operation timed out after 9 ms", True, "timeout"),
        (pycurl.E_OPERATION_TIMEDOUT, "Operation too slow. Less than", False, "timeout"),
        (pycurl.E_OPERATION_TIMEDOUT, "Operation too slow. Less than", True, "too_slow"),
        (pycurl.E_RECV_ERROR, "Recv failure: Connection reset by peer", False, "connection_reset"),
        (pycurl.E_RECV_ERROR, "Recv failure: Connection reset by peer", True, "truncated_body"),
        (92, "HTTP/2 stream was not closed cleanly", True, "truncated_body"),
        (pycurl.E_PARTIAL_FILE, "", True, "truncated_body"),
        (pycurl.E_GOT_NOTHING, "", False, "connection_reset"),
        (pycurl.E_UNSUPPORTED_PROTOCOL, "Received HTTP/0.9 when not allowed", False, "bad_response"),
        (4711, "", False, "fetch_failed"),
    ],
)
def test_failure_reason(code: int, message: str, has_headers: bool, reason: str) -> None:
    assert failure_reason(code, message, has_headers) == reason


@pytest.mark.parametrize(
    ("reason", "passes"),
    [
        *((reason, True) for reason in ("timeout", "dns_failure", "connect_failed", "connection_reset")),
        *((reason, True) for reason in ("truncated_body", "too_slow", "host_budget", "host_down")),
        *((reason, True) for reason in ("robots_unreachable", "http_408", "http_425", "http_429", "http_503")),
        *((reason, False) for reason in ("http_404", "http_403", "http_50", "http_5030", "optout_robots")),
        *((reason, False) for reason in ("refused_address", "too_many_bytes", "tls_failed", "empty", "")),
    ],
)
def test_what_may_pass(reason: str, passes: bool) -> None:
    assert may_pass(reason) == passes


def test_what_says_that_a_host_is_down() -> None:
    assert all(map(speaks_of_host, ("timeout", "dns_failure", "connect_failed", "http_429", "http_500")))
    assert not any(map(speaks_of_host, ("http_404", "truncated_body", "too_slow", "tls_failed")))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("999999999", 999999999.0),
        ("9" * 400, None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("Sat, 21 Nov 2026 12:00:05 GMT", 5.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("Sat, 21 Nov 2026 13:00:00 GMT", 3600.0),
        ("Sat, 21 Nov 99999 13:00:00 GMT", None),
    ],
)
def test_retry_wait(value: str | None, seconds: float | None) -> None:
    noon = 1795262400.0  # 2026-11-21T12:00:00Z
    assert retry_wait(value, noon) == seconds


@given(st.text())
def test_any_retry_after_gives_a_wait_or_none(value: str) -> None:
    wait = retry_wait(value, 0.0)
    assert wait is None or wait >= 0


@given(st.text(), st.integers(0, 10_000), st.integers(0, 9))
def test_backoff_is_bounded_and_repeatable(url: str, tries: int, seed: int) -> None:
    wait = backoff(url, tries, base=0.5, most=60.0, seed=seed)
    assert 0 <= wait < min(60.0, 0.5 * 2.0 ** min(tries, 30))
    assert wait == backoff(url, tries, base=0.5, most=60.0, seed=seed)


def test_backoff_is_jittered() -> None:
    waits = [backoff(f"http://a.example/{number}", 1, base=1.0, most=60.0) for number in range(200)]
    assert len(set(waits)) == 200
    assert 0.8 < sum(waits) / 200 < 1.2  # full jitter: the mean is half of base * 2


ZIPPED = gzip.compress(b"picture", mtime=0)


@pytest.mark.parametrize(
    ("coding", "data", "plain"),
    [
        (None, b"picture", b"picture"),
        ("identity", b"picture", b"picture"),
        ("UTF-8", b"picture", b"picture"),
        ("GZIP", ZIPPED, b"picture"),
        ("deflate", zlib.compress(b"picture"), b"picture"),
        ("gzip", ZIPPED[:-4], None),
        ("gzip", ZIPPED + b"more", None),
        ("gzip", b"picture", None),
        ("gzip", gzip.compress(bytes(10_000), mtime=0), None),
        ("br", b"picture", None),
        ("gzip, gzip", gzip.compress(ZIPPED, mtime=0), None),
    ],
)
def test_plain_body(coding: str | None, data: bytes, plain: bytes | None) -> None:
    headers = [("content-encoding", coding)] if coding else []
    assert plain_body(data, headers, 1000) == plain


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", 404),
        (b"HTTP/2 200 \r\nserver: x\r\n\r\n", 200),
        (b"HTTP/1.0 200\n\n", 200),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 200),
        (b"HTTP/1.1 100 Continue\r\n\r\n", 0),
        (b"HTTP/1.1 200 OK\r\nETag: a\r\n", 0),
        (b"SMTP\r\n\r\n", 0),
        (b"", 0),
    ],
)
def test_status_of_a_head(head: bytes, status: int) -> None:
    assert parse_head(head)[0] == status


@given(st.binary())
def test_any_head_is_read(head: bytes) -> None:
    parse_head(head)
    parse_head(b"HTTP/1.1 200 OK\r\n" + head)


def test_headers_are_few_and_encodable() -> None:
    head = b"HTTP/1.1 200 OK\r\nETag: caf\xe9\r\nSet-Cookie: a=b\r\n etag: x\r\nno colon\r\n"
    status, headers = parse_head(head + b"X-Robots-Tag:noai\r\nLOCATION:  /a \r\n\r\nETag: trailer\r\n")
    assert status == 200
    assert headers == [("etag", "caf\ufffd"), ("x-robots-tag", "noai"), ("location", "/a")]
    assert kept_headers(headers) == (("etag", "caf\ufffd"), ("x-robots-tag", "noai"))
    assert len(kept_headers([("etag", "x" * 10_000)] * 99)) == 32
    assert all(name == name.lower() for name in KEPT_HEADERS)
