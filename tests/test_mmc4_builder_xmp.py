"""plus:DataMining, out of real files that Pillow writes, and out of broken ones."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmc4_builder.xmp import data_mining

VOCABULARY = "http://ns.useplus.org/ldf/vocab/"
CODE = "DMI-PROHIBITED-AIMLTRAINING"
FORMS = {
    "attribute": f'<rdf:Description plus:DataMining="{VOCABULARY}{CODE}" xmpRights:Marked="True"/>',
    "element": f"<plus:DataMining>{VOCABULARY}{CODE}</plus:DataMining>",
    "resource": f'<plus:DataMining rdf:resource="{VOCABULARY}{CODE}"/>',
    "other prefix": f"<ns1:DataMining>\n  {VOCABULARY}{CODE}\n</ns1:DataMining>",
    "bare code": f"<plus:DataMining>{CODE}</plus:DataMining>",
}


def picture(kind: str, xmp: str = "", *, deflated: bool = False) -> bytes:
    image, file = Image.new("RGB", (8, 8), "red"), io.BytesIO()
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{xmp}</x:xmpmeta>'
    if kind == "PNG":
        info = PngInfo()
        if xmp:
            info.add_itxt("XML:com.adobe.xmp", packet, zip=deflated)
        image.save(file, kind, pnginfo=info)
    elif xmp:
        image.save(file, kind, xmp=packet.encode())
    else:
        image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("form", FORMS)
def test_forms_and_formats(kind: str, form: str) -> None:
    assert data_mining(picture(kind, FORMS[form])) == CODE


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_nothing_said(kind: str) -> None:
    assert data_mining(picture(kind)) is None
    assert data_mining(picture(kind, "<dc:title>DMI-PROHIBITED</dc:title>")) is None
    assert data_mining(picture(kind, "<plus:DataMining></plus:DataMining> DMI-PROHIBITED")) is None


def test_deflated_text() -> None:
    assert data_mining(picture("PNG", FORMS["element"], deflated=True)) == CODE


def test_a_deflate_bomb_is_read_in_part() -> None:
    assert data_mining(picture("PNG", " " * (50 << 20) + FORMS["element"], deflated=True)) is None


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (["DMI-ALLOWED"], "DMI-ALLOWED"),
        (["DMI-UNSPECIFIED", "DMI-PROHIBITED"], "DMI-PROHIBITED"),
        (["DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING"], "DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING"),
    ],
)
def test_a_prohibition_is_reported_first(codes: list[str], expected: str) -> None:
    xmp = "".join(f"<plus:DataMining>{VOCABULARY}{code}</plus:DataMining>" for code in codes)
    assert data_mining(picture("JPEG", xmp)) == expected


def test_the_picture_itself_is_not_searched() -> None:
    assert data_mining(picture("JPEG") + FORMS["element"].encode()) is None
    assert data_mining(b"GIF89a" + FORMS["element"].encode()) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_cut_files_end_quietly(kind: str) -> None:
    whole = picture(kind, FORMS["element"])
    assert {data_mining(whole[:size]) for size in range(len(whole))} <= {
        None,
        *(CODE[:end] for end in range(len(CODE))),
    } | {CODE}


@given(
    st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\xff"]), st.binary(max_size=200)
)
def test_any_bytes_end_quietly(start: bytes, rest: bytes) -> None:
    assert data_mining(start + rest) is None
