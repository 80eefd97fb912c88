"""A stored HTTP response taken apart: status, headers, and the body with its codings undone."""

import re
import zlib
from collections.abc import Iterator
from typing import Protocol

MAX_HEAD = 64 << 10  # bytes; servers and crawlers stop far earlier
PIECE = 64 << 10

Headers = tuple[tuple[str, str], ...]

_STATUS = re.compile(rb"HTTP/[0-9](?:\.[0-9])?[ \t]+([0-9]{3})(?![0-9])")
_FOLD = re.compile(r"\r?\n[ \t]+")
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]{0,4096})?\r?\n")


class BadMessage(ValueError):
    """The stored bytes are no HTTP response that can be used; `reason` is a counter's name."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def split_message(block: bytes) -> tuple[int, Headers, bytes]:
    """Status, headers and stored body. Headers are decoded as Latin-1, so that no byte is lost.

    Raises BadMessage: no_http_header, bad_http_header, http_header_too_large.
    """
    found = _STATUS.match(block)
    if not found:
        raise BadMessage("no_http_header", f"the block starts with {block[:40]!r}")
    end, body = _blank_line(block)
    if end < 0:
        reason = "http_header_too_large" if len(block) >= MAX_HEAD else "bad_http_header"
        raise BadMessage(reason, f"no blank line within {min(len(block), MAX_HEAD)} bytes")
    head = block[:end].decode("latin-1")
    if "\n " in head or "\n\t" in head:
        head = _FOLD.sub(" ", head)
    pairs = [line.partition(":") for line in head.split("\n")[1:]]
    headers = tuple([(name.strip(), value.strip()) for name, colon, value in pairs if colon and name.strip()])
    return int(found[1]), headers, block[body:]


def _blank_line(block: bytes) -> tuple[int, int]:
    """Where the header ends and where the body begins; -1 without a blank line. Bare line feeds count too."""
    crlf = block.find(b"\n\r\n", 0, MAX_HEAD)
    bare = block.find(b"\n\n", 0, MAX_HEAD if crlf < 0 else crlf + 1)
    return (bare, bare + 2) if bare >= 0 else (crlf, crlf + 3)


def header(headers: Headers, name: str) -> str:
    """The first value of a header, or ""."""
    lowered = name.lower()
    for key, value in headers:
        if key.lower() == lowered:
            return value
    return ""


def decode_body(headers: Headers, body: bytes, max_bytes: int) -> tuple[bytes, bool]:
    """The body without transfer and content codings, and whether it was whole.

    Common Crawl stores bodies decoded and renames the headers; other crawlers keep both. A header alone
    proves nothing: a coding is undone only where the bytes bear its mark. What a cut body gives is kept.
    Raises BadMessage: payload_too_large, bad_content_encoding, unsupported_content_encoding.
    """
    whole = True
    if "chunked" in header(headers, "Transfer-Encoding").lower():
        body, whole = _unchunk(body)
    for coding in _codings(headers):
        if decoder := _decoder(coding, body):
            body, complete = _decode(decoder, coding, body, max_bytes)
            whole = whole and complete
    if len(body) > max_bytes:
        raise BadMessage("payload_too_large", f"{len(body)} bytes, {max_bytes} are allowed")
    return body, whole


def _codings(headers: Headers) -> list[str]:
    """Content codings in the order in which they are to be undone; more than four is nobody's intent."""
    joined = ",".join([value for name, value in headers if name.lower() == "content-encoding"])
    return [name.strip() for name in joined.lower().split(",") if name.strip()][3::-1]


def _unchunk(body: bytes) -> tuple[bytes, bool]:
    """Chunks joined (RFC 9112 §7.1); the body as it is where it does not begin like a chunk."""
    parts: list[bytes] = []
    position = 0
    while found := _CHUNK.match(body, position):
        size = int(found[1], 16)
        start, position = found.end(), found.end() + size
        if size == 0:
            return b"".join(parts), True
        parts.append(body[start:position])
        if position >= len(body):
            return b"".join(parts), False
        if body[position : position + 2] == b"\r\n":
            position += 2
        elif body[position : position + 1] == b"\n":
            position += 1
        else:
            return body, True  # text that only looked like a chunk
    return (b"".join(parts), False) if parts else (body, True)


class _Decoder(Protocol):
    """One coding: `pieces` gives the decoded bytes bit by bit; `complete` tells whether the end was seen."""

    complete: bool

    def pieces(self, body: bytes) -> Iterator[bytes]: ...


def _decoder(coding: str, body: bytes) -> _Decoder | None:
    """A decoder where the bytes look encoded, None where they are plain already."""
    if coding in ("gzip", "x-gzip") and body[:2] == b"\x1f\x8b":
        return _Zlib(zlib.MAX_WBITS | 16)
    if coding == "deflate" and len(body) > 1 and body[0] & 0x0F == 8 and (body[0] * 256 + body[1]) % 31 == 0:
        return _Zlib(zlib.MAX_WBITS)
    if coding == "deflate" and _is_raw_deflate(body):
        return _Zlib(-zlib.MAX_WBITS)
    if coding == "br" and not _is_text(body):
        return _Brotli()
    if coding == "zstd" and body[:4] == b"\x28\xb5\x2f\xfd":
        raise BadMessage("unsupported_content_encoding", "zstd")
    return None


def _decode(decoder: _Decoder, coding: str, body: bytes, max_bytes: int) -> tuple[bytes, bool]:
    parts: list[bytes] = []
    total = 0
    try:
        for piece in decoder.pieces(body):
            parts.append(piece)
            total += len(piece)
            if total > max_bytes:
                raise BadMessage("payload_too_large", f"{coding} body unpacks to more than {max_bytes} bytes")
    except zlib.error as error:
        raise BadMessage("bad_content_encoding", f"{coding}: {error}") from error
    return b"".join(parts), decoder.complete


class _Zlib:
    def __init__(self, window_bits: int) -> None:
        self._inflate = zlib.decompressobj(window_bits)
        self.complete = False

    def pieces(self, body: bytes) -> Iterator[bytes]:
        while body and not self._inflate.eof:
            yield self._inflate.decompress(body, PIECE)
            body = self._inflate.unconsumed_tail
        self.complete = self._inflate.eof


class _Brotli:
    def __init__(self) -> None:
        try:
            import brotli
        except ImportError as error:
            raise BadMessage("unsupported_content_encoding", "br; pip install 'brotli>=1.2'") from error
        self._brotli = brotli
        self._inflate = brotli.Decompressor()
        self.complete = False

    def pieces(self, body: bytes) -> Iterator[bytes]:
        """Without `output_buffer_limit` (before brotli 1.2) a few bytes could fill the memory."""
        try:
            piece: bytes = self._inflate.process(body, output_buffer_limit=PIECE)
            while piece:
                yield piece
                piece = self._inflate.process(b"", output_buffer_limit=PIECE)
        except TypeError as error:
            raise BadMessage("unsupported_content_encoding", "br; pip install 'brotli>=1.2'") from error
        except self._brotli.error as error:
            raise BadMessage("bad_content_encoding", f"br: {error}") from error
        self.complete = bool(self._inflate.is_finished())


def _is_raw_deflate(body: bytes) -> bool:
    """Raw deflate has no mark: tried where the bytes are not text."""
    if _is_text(body):
        return False
    try:
        zlib.decompressobj(-zlib.MAX_WBITS).decompress(body[:4096], PIECE)
    except zlib.error:
        return False
    return True


def _is_text(body: bytes) -> bool:
    """Whether the start has no control characters, which packed bytes nearly always have."""
    start = body[:512]
    return not start.translate(None, bytes(range(0x20, 0x100)) + b"\t\n\r\f\x1b")
