"""Charsets: the order of the sources, the browsers' names, and never an error."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmc4_builder.charset import codec_of, decode

HTML = "text/html"
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 3


@pytest.mark.parametrize(
    ("payload", "content_type", "text", "codec"),
    [
        ("é".encode(), "text/html; charset=UTF-8", "é", "utf-8"),
        (b"\x93x\x94", 'text/html; charset="ISO-8859-1"', "\u201cx\u201d", "cp1252"),
        (b"\xe9", "text/html;charset='latin1'", "é", "cp1252"),
        # The header is asked before the page, and an unknown header after it.
        (b"<meta charset=utf-8>\xe9", "text/html; charset=latin1", "<meta charset=utf-8>é", "cp1252"),
        (b"<meta charset=cp1251>\xef", "text/html; charset=nonsense", "<meta charset=cp1251>п", "cp1251"),
        (
            codecs.BOM_UTF8 + b"<meta charset=latin1>",
            "text/html; charset=latin1",
            "<meta charset=latin1>",
            "utf-8",
        ),
        (codecs.BOM_UTF16_LE + "ж".encode("utf-16-le"), HTML, "ж", "utf-16-le"),
        (codecs.BOM_UTF16_BE + "ж".encode("utf-16-be"), HTML, "ж", "utf-16-be"),
        ("<p>ж".encode("utf-16-le"), "text/html; charset=utf-16", "<p>ж", "utf-16-le"),
        # UTF-16 that is none: the server or the page is wrong.
        ("<p>ж".encode(), "text/html; charset=utf-16", "<p>ж", "utf-8"),
        ("<meta charset=utf-16>ж".encode(), HTML, "<meta charset=utf-16>ж", "utf-8"),
        (
            b'<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">\xef',
            HTML,
            '<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">п',
            "cp1251",
        ),
        (b"<META  CHARSET = 'koi8-r' >\xd0", HTML, "<META  CHARSET = 'koi8-r' >п", "koi8-r"),
        (
            b'<?xml version="1.0" encoding="cp1251"?>\xef',
            HTML,
            '<?xml version="1.0" encoding="cp1251"?>п',
            "cp1251",
        ),
        # A declaration in a comment is none; one behind it counts.
        ("<!-- <meta charset=latin1> -->ж".encode(), HTML, "<!-- <meta charset=latin1> -->ж", "utf-8"),
        (b"<!-- x --><meta charset=cp1251>\xef", HTML, "<!-- x --><meta charset=cp1251>п", "cp1251"),
        (b"", "", "", "utf-8"),
        (b"plain", "", "plain", "utf-8"),
        ("cut ж".encode()[:-1], HTML, "cut \ufffd", "utf-8"),
        (b"\xff\xe9 \0", "text/html; charset=utf-8", "\ufffd\ufffd \0", "utf-8"),
        ("中".encode("gb18030"), "text/html; charset=gb2312", "中", "gb18030"),
        (b"\x87\x40", "text/html; charset=Shift_JIS", "①", "cp932"),
    ],
)
def test_decode(payload: bytes, content_type: str, text: str, codec: str) -> None:
    assert decode(payload, content_type) == (text, codec)


@pytest.mark.parametrize("codec", ["cp1251", "utf-8"])
def test_undeclared_text_is_detected(codec: str) -> None:
    assert decode(RUSSIAN.encode(codec), HTML) == (RUSSIAN, codec)


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("latin1", "cp1252"),
        ("us-ascii", "cp1252"),
        ("ISO-8859-9", "cp1254"),
        ("tis-620", "cp874"),
        ("gbk", "gb18030"),
        ("euc-kr", "cp949"),
        ("x-sjis", "cp932"),
        ("big5", "big5hkscs"),
        (" UTF8 ", "utf-8"),
        ("base64", None),
        ("rot13", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_labels(label: str, codec: str | None) -> None:
    assert codec_of(label) == codec


LABELS = (
    "utf-8 ibm866 iso-8859-2 iso-8859-3 iso-8859-4 iso-8859-5 iso-8859-6 iso-8859-7 iso-8859-8 iso-8859-8-i "
    "iso-8859-10 iso-8859-13 iso-8859-14 iso-8859-15 iso-8859-16 koi8-r koi8-u macintosh windows-874 "
    "windows-1250 windows-1251 windows-1252 windows-1253 windows-1254 windows-1255 windows-1256 windows-1257 "
    "windows-1258 gbk gb18030 big5 euc-jp iso-2022-jp shift_jis euc-kr utf-16be utf-16le"
)


@pytest.mark.parametrize("label", LABELS.split())
def test_every_name_of_the_encoding_standard_is_a_codec(label: str) -> None:
    codec = codec_of(label)
    assert codec is not None
    assert codecs.lookup(codec)


@given(st.binary(max_size=300), st.sampled_from(["", HTML, "text/html; charset=utf-16", "; charset=\udcff"]))
def test_decode_never_raises(payload: bytes, content_type: str) -> None:
    text, codec = decode(payload, content_type)
    text.encode("utf-8")  # no lone surrogates
    assert codecs.lookup(codec)
