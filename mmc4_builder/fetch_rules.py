"""What answers and errors of the live web mean: reasons, which of them may pass, waits, codings, headers."""

import re
import zlib
from collections.abc import Iterable, Sequence
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import Final

import pycurl

Headers = tuple[tuple[str, str], ...]

KEPT_HEADERS: Final = frozenset(
    ("content-encoding", "content-signal", "content-type", "content-usage", "date", "etag", "last-modified")
    + ("tdm-policy", "tdm-reservation", "x-robots-tag")
)
MAX_KEPT_HEADERS: Final = 32
MAX_KEPT_CHARS: Final = 4096  # of one value
_READ: Final = "|".join(sorted((*KEPT_HEADERS, "content-length", "location", "retry-after")))
_FIELD = re.compile(rf"(?ima)^({_READ}):(.*)$")
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
WHOLE: Final = frozenset({200, 203})  # statuses whose body is the whole picture; 206 was not asked for

_STATUS = re.compile(r"HTTP/[0-9.]+ ([0-9]{3})")
_BLANK = re.compile(r"\n\r?\n")
_ZLIB_CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
_OTHER_CODINGS: Final = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})
_PASSING: Final = frozenset(
    {"timeout", "dns_failure", "connect_failed", "connection_reset", "truncated_body", "too_slow"}
    | {"http_408", "http_425", "http_429", "host_budget", "host_down", "robots_unreachable"}
)
_SERVER_ERROR = re.compile(r"http_5[0-9][0-9]")
_OF_THE_HOST: Final = frozenset({"timeout", "dns_failure", "connect_failed", "http_429"})

_TOO_LARGE: Final = 100  # CURLE_TOO_LARGE, which pycurl does not name: headers without end
_STREAM_FAULTS: Final = frozenset({92, 95})  # CURLE_HTTP2_STREAM, CURLE_HTTP3
_REASONS: Final = {
    pycurl.E_URL_MALFORMAT: "invalid_url",
    pycurl.E_COULDNT_RESOLVE_HOST: "dns_failure",
    pycurl.E_COULDNT_CONNECT: "connect_failed",
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_FILESIZE_EXCEEDED: "too_many_bytes",
    pycurl.E_PARTIAL_FILE: "truncated_body",
    pycurl.E_GOT_NOTHING: "connection_reset",
    pycurl.E_SEND_ERROR: "connection_reset",
    pycurl.E_SSL_CONNECT_ERROR: "tls_failed",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls_failed",
    pycurl.E_SSL_CERTPROBLEM: "tls_failed",
    pycurl.E_SSL_CIPHER: "tls_failed",
    pycurl.E_SSL_ISSUER_ERROR: "tls_failed",
    pycurl.E_SSL_INVALIDCERTSTATUS: "tls_failed",
    pycurl.E_UNSUPPORTED_PROTOCOL: "bad_response",  # libcurl's word for a server that speaks no HTTP
    pycurl.E_FTP_WEIRD_SERVER_REPLY: "bad_response",
    pycurl.E_HTTP2: "bad_response",
    pycurl.E_BAD_CONTENT_ENCODING: "bad_response",
    _TOO_LARGE: "bad_response",
}


def failure_reason(code: int, message: str, has_headers: bool) -> str:
    """The reason behind an error of libcurl; the same error means other things before and after the headers."""
    if code == pycurl.E_RECV_ERROR and "header" in message.lower():
        return "bad_response"
    if code == pycurl.E_RECV_ERROR or code in _STREAM_FAULTS:
        return "truncated_body" if has_headers else "connection_reset"
    if code == pycurl.E_OPERATION_TIMEDOUT and has_headers and "too slow" in message:
        return "too_slow"
    return _REASONS.get(code, "fetch_failed")


def may_pass(reason: str) -> bool:
    """Whether asking again, now or in a later run, may end better. What was refused stays refused."""
    return reason in _PASSING or _SERVER_ERROR.fullmatch(reason) is not None


def speaks_of_host(reason: str) -> bool:
    """Whether a failure is a sign that the whole host is down, and not only one of its URLs."""
    return reason in _OF_THE_HOST or _SERVER_ERROR.fullmatch(reason) is not None


def retry_wait(retry_after: str | None, now: float) -> float | None:
    """Seconds that the server asks to wait, None where it names none (RFC 9110 §10.2.3). `now`: seconds since 1970."""
    text = (retry_after or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):  # neither of its two forms
        return None


def backoff(url: str, tries: int, *, base: float, most: float, seed: int = 0) -> float:
    """Seconds before the next try: exponential with full jitter, and the same for the same URL and seed."""
    digest = blake2b(f"{seed} {tries} {url}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    return share * min(most, base * 2.0 ** min(tries, 30))


def coding_of(headers: Iterable[tuple[str, str]]) -> str | None:
    """The content coding that plain_body undoes, "" for identity, None for one that nobody asked for.

    Names that are no coding at all ("none", "UTF-8", "binary" are seen) are taken for identity.
    """
    coding = ",".join(value for name, value in headers if name == "content-encoding").strip().lower()
    if coding in _OTHER_CODINGS or "," in coding:
        return None
    return coding if coding in _ZLIB_CODINGS else ""


def plain_body(data: bytes, headers: Iterable[tuple[str, str]], max_bytes: int) -> bytes | None:
    """Undoes a content coding sent although only identity was asked for; None for bombs, debris and odd codings."""
    coding = coding_of(headers)
    if not coding:
        return data if coding == "" else None
    inflate = zlib.decompressobj(wbits=47)  # zlib or gzip, told apart by their headers
    try:
        plain = inflate.decompress(data, max_bytes + 1)
    except zlib.error:
        return None
    return None if len(plain) > max_bytes or not inflate.eof or inflate.unused_data else plain


def parse_head(head: bytes) -> tuple[int, list[tuple[str, str]]]:
    """Status, and the fields that anything here looks at, of what came before a body; status 0 if it is not whole.

    Interim answers (1xx) are skipped, and so are trailers. Names are in lower case, bytes that are no text replaced.
    """
    text, start = head.decode("utf-8", "replace"), 0
    while (end := _BLANK.search(text, start)) is not None:
        status = _STATUS.match(text, start)
        if status is None:
            return 0, []
        if status[1] >= "200":
            found = _FIELD.findall(text, start, end.end())
            return int(status[1]), [(name.lower(), value.strip()) for name, value in found]
        start = end.end()
    return 0, []


def kept_headers(headers: Sequence[tuple[str, str]]) -> Headers:
    """The headers worth keeping, of those with lower-case names; repeated fields are kept apart."""
    kept = [(name, value[:MAX_KEPT_CHARS]) for name, value in headers if name in KEPT_HEADERS]
    return tuple(kept[:MAX_KEPT_HEADERS])


def header(headers: Iterable[tuple[str, str]], name: str) -> str | None:
    """The first value of a field."""
    return next((value for field, value in headers if field == name), None)
