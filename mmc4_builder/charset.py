"""From the bytes of a page to its text: byte-order mark, HTTP header, <meta>, then a detector."""

import codecs
import re

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

# The WHATWG prescan stops at 1,024 bytes. Pages in the wild declare later, so we look a little further.
PRESCAN_BYTES = 4096
FALLBACK = "cp1252"  # what browsers take for a page that says nothing and is not UTF-8

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# Browsers read these names with the larger set that contains them (WHATWG Encoding Standard).
_LARGER = {
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
}
_HEADER = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]{1,40})", re.I)
_META = re.compile(rb"<meta\s[^>]{0,1000}?charset\s*=\s*[\"']?\s*([^\s\"';/>]{1,40})", re.I)
_XML = re.compile(rb"\s*<\?xml\s[^>]{0,200}?encoding\s*=\s*[\"']([^\"'>]{1,40})", re.I)
_COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.S)


def decode(payload: bytes, content_type: str) -> tuple[str, str]:
    """The text of a page and the Python codec that read it. Never raises: what cannot be read is U+FFFD."""
    for mark, name in _BOMS:
        if payload.startswith(mark):
            return payload[len(mark) :].decode(name, "replace"), name
    name = _from_header(content_type, payload) or _from_markup(payload) or _detected(payload)
    return payload.decode(name, "replace"), name


def codec_of(label: str) -> str | None:
    """The Python codec for a charset label as browsers understand it, or None for an unknown label."""
    # Labels are ASCII; a header may hold anything, lone surrogates too.
    name = map_encoding_to_html5(label.strip().lower(), fallback_utf8=False) if label.isascii() else None
    return _LARGER.get(name, name) if name else None


def _from_header(content_type: str, payload: bytes) -> str | None:
    label = _HEADER.search(content_type)
    name = codec_of(label[1]) if label else None
    # UTF-16 without a mark and without a single NUL is a server's mistake: mark-up is ASCII.
    return None if name in ("utf-16-le", "utf-16-be") and b"\0" not in payload[:PRESCAN_BYTES] else name


def _from_markup(payload: bytes) -> str | None:
    head = payload[:PRESCAN_BYTES]
    if b"<!--" in head:
        head = _COMMENT.sub(b"", head)
    found = _META.search(head) or _XML.match(head)
    name = codec_of(found[1].decode("ascii", "replace")) if found else None
    # A declaration that could be read byte by byte is not in UTF-16, whatever it says (WHATWG).
    return "utf-8" if name in ("utf-16-le", "utf-16-be") else name


def _detected(payload: bytes) -> str:
    try:
        payload.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError as error:
        if error.start >= len(payload) - 3:  # a page that the crawl cut inside a character
            return "utf-8"
    name = detect_encoding(payload)
    return (codec_of(name) or FALLBACK) if name else FALLBACK
