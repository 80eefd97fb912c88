"""The released JSON and its zip: spelling, order, names, and what is refused."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from consumers import mm_interleaved
from hypothesis import given
from hypothesis import strategies as st
from mmc4_corpus import document, jpeg, released_docs, write_docs

from mmc4_builder import mmc4_format
from mmc4_builder.contract import Rules, check_document
from mmc4_builder.match import assign
from mmc4_builder.mmc4_format import (
    FormatError,
    MatchedDocument,
    MatchedImage,
    docs_stem,
    encode_doc,
    escape_markers,
    image_name,
    image_names,
    match_images,
    read_docs_lines,
    read_docs_zip,
    to_json,
    url_extension,
    write_docs_zip,
)

SIMILARITY = np.array([[0.1, 0.2, 0.35], [0.3, 0.1, 0.2]], dtype=np.float32)
URLS = ("http://a.example/x.jpg", "http://a.example/y.png")


def matched(**changes: object) -> MatchedDocument:
    parts: dict = {
        "url": "http://a.example/",
        "sentences": ("One.", "Two.", "Three."),
        "images": match_images(URLS, SIMILARITY, assign(SIMILARITY)),
        "similarity": SIMILARITY,
    }
    return MatchedDocument(**{**parts, **changes})


def test_keys_come_in_the_released_order() -> None:
    doc = to_json(matched(could_have_url_duplicate=True))
    assert list(doc) == ["url", "text_list", "image_info", "similarity_matrix", "could_have_url_duplicate"]
    assert list(doc["image_info"][0]) == [
        "image_name",
        "raw_url",
        "matched_text_index",
        "matched_sim",
        "face_detections",
    ]
    assert doc["could_have_url_duplicate"] == 1
    assert "could_have_url_duplicate" not in to_json(matched(could_have_url_duplicate=None))


def test_images_and_rows_are_sorted_by_sentence() -> None:
    doc = to_json(matched())
    assert [image["raw_url"] for image in doc["image_info"]] == list(reversed(URLS))
    assert [image["matched_text_index"] for image in doc["image_info"]] == [0, 2]
    assert doc["similarity_matrix"] == SIMILARITY[::-1].tolist()


def test_images_of_one_sentence_keep_their_order() -> None:
    similarity = np.full((3, 1), 0.2, dtype=np.float32)
    urls = [f"http://a.example/{row}.jpg" for row in range(3)]
    images = match_images(urls, similarity, assign(similarity))
    doc = to_json(matched(images=images, similarity=similarity, sentences=("Only.",)))
    assert [image["raw_url"] for image in doc["image_info"]] == urls


def test_numbers_are_float32_widened_to_double() -> None:
    doc = to_json(matched())
    for row, image in zip(doc["similarity_matrix"], doc["image_info"], strict=True):
        assert row[image["matched_text_index"]] == image["matched_sim"]
        assert all(float(np.float32(value)) == value for value in row)
    assert doc["similarity_matrix"][0][0] == 0.30000001192092896


def test_a_double_matrix_is_rounded_before_it_is_matched() -> None:
    similarity = SIMILARITY.astype(np.float64) + 1e-12
    images = match_images(URLS, similarity, assign(similarity))
    assert to_json(matched(images=images, similarity=similarity)) == to_json(matched())


def test_the_released_documents_come_back_from_their_parts() -> None:
    docs = released_docs()
    if not docs:
        pytest.skip("the released documents are not beside this checkout")
    for doc in docs:
        images = tuple(MatchedImage(**image) for image in doc["image_info"])
        parts = MatchedDocument(
            url=doc["url"],
            sentences=tuple(doc["text_list"]),
            images=images,
            similarity=np.array(doc["similarity_matrix"], dtype=np.float32),
            could_have_url_duplicate=None,
        )
        again = to_json(parts)
        order = sorted(range(len(images)), key=lambda row: images[row].matched_text_index)
        expected = {
            **doc,
            "image_info": [doc["image_info"][row] for row in order],
            "similarity_matrix": [doc["similarity_matrix"][row] for row in order],
        }
        assert encode_doc(again) == json.dumps(expected).encode()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sentences": ("One.",)}, r"shape \(2, 3\), expected \(2, 1\)"),
        ({"images": ()}, r"expected \(0, 3\)"),
        (
            {
                "images": tuple(
                    MatchedImage(
                        image_name="a.jpg",
                        raw_url=url,
                        matched_text_index=0,
                        matched_sim=float(SIMILARITY[row, 0]),
                    )
                    for row, url in enumerate(URLS)
                )
            },
            "one name",
        ),
        (
            {"similarity": SIMILARITY + np.float32(0.1)},
            "not its cell",
        ),
        (
            {
                "images": tuple(
                    MatchedImage(image_name=f"{row}", raw_url=url, matched_text_index=-1, matched_sim=0.0)
                    for row, url in enumerate(URLS)
                )
            },
            "sentence -1 of 3",
        ),
    ],
)
def test_parts_that_contradict_each_other_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        to_json(matched(**changes))


@pytest.mark.parametrize(
    "text, escaped",
    [
        ("Use <image> here.", "Use <IMAGE> here."),
        ("a<|endofchunk|>b<image><image>", "a<|ENDOFCHUNK|>b<IMAGE><IMAGE>"),
        ("<im<image>age>", "<im<IMAGE>age>"),
        ("<Image> and <img> stay", "<Image> and <img> stay"),
        ("", ""),
    ],
)
def test_markers_are_escaped(text: str, escaped: str) -> None:
    assert escape_markers(text) == escaped
    assert to_json(matched(sentences=(text, "b", "c")))["text_list"][0] == escaped


@given(st.lists(st.sampled_from(["<image>", "<|endofchunk|>", "<im", "age>", "<|endof", "chunk|>", " "])))
def test_no_marker_survives_alone_or_joined(parts: list[str]) -> None:
    text = escape_markers("".join(parts))
    assert "<image>" not in text and "<|endofchunk|>" not in text
    assert escape_markers(text) == text


@pytest.mark.parametrize(
    "url, extension",
    [
        ("http://a.example/x.jpg", "jpg"),
        ("http://a.example/x.jpeg", "jpeg"),
        ("http://a.example/a.b/x.PNG", "PNG"),
        ("http://a.example/x.jpg?width=3.5", "jpg"),
        ("http://a.example/x.php", "jpg"),
        ("http://a.example/x", "jpg"),
        ("http://example.png", "jpg"),
        ("http://[broken/x.png", "jpg"),
        ("", "jpg"),
    ],
)
def test_a_name_has_the_extension_of_its_url(url: str, extension: str) -> None:
    assert url_extension(url) == extension
    name = image_name(url)
    assert name == image_name(url)
    stem, dot, rest = name.partition(".")
    assert (len(stem), stem.lower(), dot, rest) == (12, stem, ".", extension)
    assert set(stem) <= set("0123456789abcdef")


def test_a_name_is_the_same_on_every_machine() -> None:
    assert image_name("http://a.example/x.jpg") == "daa61c7064fe.jpg"
    assert image_name("http://a.example/\ud800.jpg").endswith(".jpg")


def test_names_of_one_document_are_unique() -> None:
    url = "http://a.example/x.jpg"
    names = image_names([url, url, "http://a.example/y.jpg", url])
    assert names[0] == image_name(url)
    assert len(set(names)) == 4
    assert names == image_names([url, url, "http://a.example/y.jpg", url])


@pytest.mark.parametrize(
    "options, stem",
    [
        ({}, "docs_shard_7_v2"),
        ({"core": True}, "docs_shard_7_v3"),
        ({"no_face": True}, "docs_no_face_shard_7_v2"),
        ({"no_face": True, "core": True}, "docs_no_face_shard_7_v3"),
    ],
)
def test_stems_are_the_released_ones(options: dict, stem: str) -> None:
    assert docs_stem(7, **options) == stem


def zipped(docs: list[dict], stem: str = "docs_shard_0_v2") -> bytes:
    out = io.BytesIO()
    assert write_docs_zip(out, stem, iter(docs)) == len(docs)
    return out.getvalue()


def test_a_zip_holds_one_deflated_member_named_as_its_stem() -> None:
    docs = [document(seed) for seed in range(3)]
    with zipfile.ZipFile(io.BytesIO(zipped(docs))) as archive:
        (info,) = archive.infolist()
        text = archive.read(info).decode()
        assert archive.testzip() is None
    assert (info.filename, info.compress_type) == ("docs_shard_0_v2.jsonl", zipfile.ZIP_DEFLATED)
    assert info.date_time == (1980, 1, 1, 0, 0, 0)
    assert text == "\n".join(json.dumps(doc) for doc in docs)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_zip_comes_back_and_is_the_same_every_time(count: int) -> None:
    docs = [document(seed) for seed in range(count)]
    data = zipped(docs)
    assert data == zipped(docs)
    assert list(read_docs_zip(io.BytesIO(data))) == docs


def test_a_zip_is_the_same_on_a_stream_that_cannot_seek(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.parts: list[bytes] = []

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.parts.append(bytes(data))  # type: ignore[call-overload]
            return len(self.parts[-1])

    docs = [document(1)]
    pipe = Pipe()
    write_docs_zip(pipe, "docs_shard_0_v2", docs)
    path = write_docs(tmp_path, 0, docs)
    assert b"".join(pipe.parts) == path.read_bytes() == zipped(docs)


def test_documents_are_written_as_they_come() -> None:
    """Nothing is held back: when the last document is made, the first ones are in the stream already."""
    out, seen = io.BytesIO(), []

    def docs() -> Iterator[dict]:
        for seed in range(200):
            seen.append(out.tell())
            yield document(seed, images=8, sentences=30)

    write_docs_zip(out, "docs_shard_0_v2", docs())
    assert seen[-1] > len(out.getvalue()) // 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), b"bytes"])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(FormatError, match="'http://x/' cannot be written"):
        zipped([{"url": "http://x/", "similarity_matrix": [[value]]}])


def raw_zip(text: bytes) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("docs_shard_0_v2.jsonl", text)
    return out


@pytest.mark.parametrize(
    "data, message",
    [
        (io.BytesIO(b"no zip"), "cannot be read"),
        (io.BytesIO(zipped([document(1)])[:-30]), "cannot be read"),
        (io.BytesIO(b"PK\x05\x06" + bytes(18)), "empty"),
        (raw_zip(b"{}\n[1]"), "line 2 holds a list"),
        (raw_zip(b'{"a": NaN}'), "NaN"),
        (raw_zip(b"{"), "line 1 is not JSON"),
        (raw_zip(b"[" * 200_000), "line 1 is not JSON"),
        (raw_zip(b"\xff\xfe"), "line 1 is not JSON"),
    ],
)
def test_a_damaged_file_is_a_format_error(data: io.BytesIO, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        list(read_docs_zip(data))


def test_damaged_compressed_data_is_a_format_error() -> None:
    data = bytearray(zipped([document(seed) for seed in range(20)]))
    data[200:260] = bytes(60)
    with pytest.raises(FormatError):
        list(read_docs_zip(io.BytesIO(bytes(data))))


def test_an_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmc4_format, "MAX_LINE_BYTES", 100)
    assert list(read_docs_lines(raw_zip(b"a" * 99 + b"\n"))) == [b"a" * 99, b""]
    with pytest.raises(FormatError, match="longer than 100 bytes"):
        list(read_docs_lines(raw_zip(b"a" * 101)))


def test_a_newline_at_the_end_is_passed_over() -> None:
    assert list(read_docs_zip(raw_zip(b'{"a": 1}\n'))) == [{"a": 1}]


def test_mm_interleaved_reads_our_zip(tmp_path: Path) -> None:
    docs = [document(seed, images=3, sentences=6) for seed in range(10)]
    docs_zip = write_docs(tmp_path / "docs", 3, docs)
    (tmp_path / "images").mkdir()
    for doc in docs:
        for image in doc["image_info"]:
            (tmp_path / "images" / image["image_name"]).write_bytes(jpeg())
    sequences = list(mm_interleaved(docs_zip, tmp_path / "images"))
    assert len(sequences) >= 9
    assert not any(sequence.swapped for sequence in sequences)
    assert all(sequence.text.count("<image>") == len(sequence.images) for sequence in sequences)


@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 1000),
    st.lists(st.text(max_size=20), min_size=5, max_size=5),
)
def test_every_document_written_keeps_the_contract(n: int, m: int, seed: int, texts: list[str]) -> None:
    similarity = np.random.default_rng(seed).uniform(-1, 1, (n, m)).astype(np.float32)
    urls = [f"http://a.example/{row % 2}.png" for row in range(n)]
    images = match_images(urls, similarity, assign(similarity))
    doc = to_json(matched(sentences=tuple(texts[:m]), images=images, similarity=similarity, url=f"http://x/{texts[0]}"))
    assert list(check_document(doc, Rules(ours=True))) == []
    assert json.loads(encode_doc(doc)) == doc
