"""The search that proves absence: it finds a planted key in every kind of file, and nothing where there is none."""

import base64
import hashlib
import html
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmc4_builder.absence import Needles, search

URL = "http://victim.example/a/portrait.jpg?size=1"
DOMAIN = "gone.example"
DATA = b"\xff\xd8\xff picture"
HASH = hashlib.sha256(DATA).hexdigest()
NEEDLES = Needles.of([URL, DOMAIN, HASH])


def parquet(text: str) -> bytes:
    sink = io.BytesIO()
    entry = {"url": "http://other.example/", "headers": [{"name": "link", "value": text}]}
    pq.write_table(pa.table({"row": [1, 2], "images": [[entry], []]}), sink)
    return sink.getvalue()


def body(text: str) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"body": [text.encode(), None]}), sink)
    return sink.getvalue()


def arrows(text: str) -> bytes:
    """The second of two streams holds it."""
    parts = []
    for value in ("http://other.example/", text):
        sink = pa.BufferOutputStream()
        table = pa.table({"url": [value]})
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        parts.append(sink.getvalue().to_pybytes())
    return b"".join(parts)


def tar(name: str, data: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def zipped(text: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("docs.jsonl", json.dumps({"text_list": ["one"]}) + "\n" + json.dumps({"raw_url": text}))
    return sink.getvalue()


KINDS: dict[str, Callable[[str], bytes]] = {
    "x.parquet": parquet,
    "hosts.parquet": body,
    "x.arrows": arrows,
    "x.tar": lambda text: tar("0.json", json.dumps({"url": text}).encode()),
    "x.jsonl.zip": zipped,
    "x.jsonl": lambda text: b"{}\n" + json.dumps({"detail": f"at {text}."}).encode(),
    "x.json": lambda text: json.dumps({"é": [text]}).encode(),
    "x.html": lambda text: f'<a href="{html.escape(text)}">é</a>'.encode(),
    "x.log": lambda text: f"failed: {text}\n".encode(),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("text", "key"),
    [
        (URL, URL),
        ("https://www.VICTIM.example:443/a/portr%61it.jpg?size=1#top", URL),
        ("http://gone.example/", DOMAIN),
        ("https://user@img.gone.example/x", DOMAIN),
        (HASH, HASH),
        (HASH.upper(), HASH),
    ],
)
def test_a_planted_key_is_found(name: str, text: str, key: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(KINDS[name](text))
    hits, inside = search(str(tmp_path / name), NEEDLES)
    assert list(hits) == [key]
    assert not inside


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "text",
    [
        "http://victim.example/a/portrait.jpg",
        "http://victim.example/a/portrait.jpg?size=12",
        "http://notgone.example/",
        "http://gone.example.org/",
        "http://other.example/gone.example",
        "gone.example is a name in a text",
        HASH[:-1],
        HASH + "0",
    ],
)
def test_what_is_like_a_key_is_none(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(KINDS[name](text))
    assert search(str(tmp_path / name), NEEDLES) == ({}, {})


def test_an_address_within_another_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([f"http://proxy.example/?u={URL}", f"see {URL}, and more"]))
    assert search(str(tmp_path / "x.json"), NEEDLES) == ({URL: 1}, {URL: 1})


def test_bytes_are_found_by_their_hash(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar("picture.jpg", DATA))
    doc = {"image_info": [{"image_base64": base64.b64encode(DATA).decode()}]}
    (tmp_path / "b.tar").write_bytes(tar("0.json", json.dumps(doc).encode()))
    (tmp_path / "c.tar").write_bytes(tar(f"{HASH}.jpg", b"other"))
    for name in ("a.tar", "b.tar", "c.tar"):
        assert search(str(tmp_path / name), NEEDLES)[0] == {HASH: 1}


def test_the_bare_name_of_a_host_is_a_hit(tmp_path: Path) -> None:
    pq.write_table(pa.table({"host": ["img.gone.example", "other.example"]}), tmp_path / "x.parquet")
    assert search(str(tmp_path / "x.parquet"), NEEDLES)[0] == {DOMAIN: 1}
