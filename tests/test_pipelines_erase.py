"""What a removal takes out of rows and files, and what it leaves exactly as it was."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmc4_builder import key_lists
from mmc4_builder.commits import Commit
from mmc4_builder.workspace import Unit, Workspace
from pipelines import erase, erase_files
from pipelines.erase import MARK, Marks
from pipelines.schemas import DOCUMENTS, FACTS, MENTIONS, SCORED

HASH = "ab" * 32
KEYS = key_lists.parse(f"gone.example\nhttp://one.example/p.jpg\n{HASH}\n", "list")
MARKS = Marks(keys=KEYS, urls=frozenset({"http://two.example/same.jpg"}))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("nothing", "nothing"),
        ("http://one.example/p.jpg", MARK),
        ("https://www.one.example/p.jpg#x", MARK),
        ("http://one.example/p.jpg.", MARK + "."),
        ("http://two.example/same.jpg", MARK),
        ("See http://one.example/p.jpg, please.", f"See {MARK}, please."),
        ("See (https://img.gone.example/x?y=1).", f"See ({MARK})."),
        ("<http://one.example/p.jpg>; rel=canonical", f"<{MARK}>; rel=canonical"),
        ("http://a.example/1,http://gone.example/2", "http://a.example/1,http://gone.example/2"),
        ("sizes http://a.example/1,http://gone.example/2", f"sizes http://a.example/1,{MARK}"),
        ("http://proxy.example/?u=http://one.example/p.jpg", "http://proxy.example/?u=http://one.example/p.jpg"),
        ("http://one.example/p.jpg2", "http://one.example/p.jpg2"),
        ("gone.example", MARK),
        ("gone.example is a name", "gone.example is a name"),
        (HASH, MARK),
        ("", ""),
    ],
)
def test_scrub(before: str, after: str) -> None:
    assert MARKS.scrub(before) == after
    assert MARKS.within(before) == (before != after)


@pytest.mark.parametrize(
    ("row", "goes"),
    [
        ({"url": "http://one.example/p.jpg"}, True),
        ({"url": "http://one.example/q.jpg"}, False),
        ({"url": "http://a.example/1", "final_url": "http://cdn.gone.example/1"}, True),
        ({"url": "http://a.example/1", "final_url": None}, False),
        ({"url": "http://a.example/1", "sha256": "00" * 32, "original_sha256": HASH}, True),
        ({"url": "http://a.example/1", "target": "http://gone.example/"}, True),
        ({"page_url": "http://gone.example/", "url": "http://a.example/1"}, True),
        ({"sha256": HASH}, True),
        ({"sha256": None}, False),
        ({"key": 5}, False),
    ],
)
def test_rows_go_for_what_they_are_about(row: dict[str, Any], goes: bool) -> None:
    assert (erase.clean(row, MARKS) is None) == goes


def test_a_row_that_stays_loses_what_it_names() -> None:
    row = {
        "url": "http://a.example/",
        "images": [
            {"url": "http://one.example/p.jpg"},
            {"url": "http://a.example/2", "alt": "by http://gone.example/"},
        ],
        "headers": [{"name": "link", "value": "<http://gone.example/>"}],
        "body": b"Sitemap: http://gone.example/map\r\nDisallow: /\xff",
        "clip": [0.5, 1.0],
    }
    assert erase.clean(row, MARKS) == {
        "url": "http://a.example/",
        "images": [{"url": "http://a.example/2", "alt": f"by {MARK}"}],
        "headers": [{"name": "link", "value": f"<{MARK}>"}],
        "body": f"Sitemap: {MARK}\r\nDisallow: /".encode() + b"\xff",
        "clip": [0.5, 1.0],
    }


def document(url: str, *images: str) -> dict[str, Any]:
    return {
        "url": url,
        "sentences": ["One.", "Two."],
        "images": [{"url": image, "position": 1, "alt": "a", "caption": None} for image in images],
        "signals": [{"name": "meta:robots", "value": "noai"}],
        "warc": "0.warc.gz",
        "offset": 7,
        "length": 8,
        "digest": "x",
        "timestamp": "2024-03-01T12:00:00Z",
    }


def test_a_page_that_goes_leaves_a_blank_row() -> None:
    assert erase.clean_page(document("http://gone.example/1", "http://a.example/1"), MARKS) == {
        "url": "", "sentences": [], "images": [], "signals": [], "warc": "", "offset": 0, "length": 0, "digest": "",
        "timestamp": "",
    }  # fmt: skip


def test_counts_move_and_add_up() -> None:
    counts = {"urls.entered": 5, "urls.kept": 3, "urls.dropped.timeout": 2}
    erase.move(counts, "urls", None)
    erase.move(counts, "urls", "timeout")
    erase.move(counts, "urls", "removed")
    erase.move(counts, "urls", "never_counted")
    assert counts == {"urls.entered": 5, "urls.kept": 2, "urls.dropped.timeout": 1, "urls.dropped.removed": 2}


def test_texts_are_found_however_deep() -> None:
    table = pa.Table.from_pylist([document("http://a.example/", "http://b.example/1")], schema=DOCUMENTS)
    found = {text for column in table.columns for text in erase.texts(column)}
    assert {"http://a.example/", "One.", "http://b.example/1", "meta:robots", "0.warc.gz"} <= found
    vectors = pa.table({"clip": pa.array([[0.5, 1.0]], pa.list_(pa.float32(), 2))})
    assert list(erase.texts(vectors["clip"])) == []


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path), "erase", Unit(name="00000"))


def outputs(workspace: Workspace) -> list[str]:
    return [output.path for output in workspace.commit("f").outputs]


def test_a_documents_file_keeps_its_rows_and_groups(workspace: Workspace, tmp_path: Path) -> None:
    path = "documents/00000.parquet"
    with workspace.parquet(path, DOCUMENTS) as rows:
        for i in range(600):
            rows.append(
                document(f"http://a.example/{i}", "http://one.example/p.jpg" if i == 3 else "http://a.example/p")
            )
        rows.append(document("http://gone.example/"))
    record = Commit(step="documents", unit="00000", fingerprint="f", counts={"pages.entered": 700, "pages.kept": 601})
    record, gone = erase_files.rewrite(path, record, workspace, MARKS)
    assert [row["url"] for row in gone] == ["http://gone.example/"]
    assert record.counts == {"pages.entered": 700, "pages.kept": 600, "pages.dropped.removed": 1}
    file = pq.ParquetFile(tmp_path / path)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [500, 101]
    after = file.read().to_pylist()
    assert after[3]["images"] == []
    assert after[4] == document("http://a.example/4", "http://a.example/p")
    assert after[-1]["url"] == ""


@pytest.mark.parametrize("name", ["documents/00000.parquet", "dead_letters/extract/00000.jsonl", "images/00000.tar"])
def test_a_file_that_names_nothing_is_not_written(name: str, workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist([document("http://a.example/")], schema=DOCUMENTS), tmp_path / name)
    elif name.endswith(".tar"):
        (tmp_path / name).write_bytes(tar_of({"cd" * 32: b"x"}))
    else:
        (tmp_path / name).write_text(json.dumps({"detail": "http://a.example/"}) + "\n")
    erase_files.rewrite(name, Commit(step="s", unit="00000", fingerprint="f"), workspace, MARKS)
    assert outputs(workspace) == []


def test_scores_of_a_document_that_goes(workspace: Workspace, tmp_path: Path) -> None:
    images = [{"url": f"http://a.example/{i}", "sha256": HASH if i == 2 else "cd" * 32} for i in range(3)]
    with workspace.parquet("scores/00000.parquet", SCORED) as rows:
        rows.extend([{"row": 0, "images": images}, {"row": 1, "images": images}, {"row": 2, "images": []}])
    marks = Marks(keys=KEYS, rows=frozenset({1, 2}))
    erase_files.rewrite("scores/00000.parquet", Commit(step="s", unit="00000", fingerprint="f"), workspace, marks)
    after = pq.read_table(tmp_path / "scores/00000.parquet").to_pylist()
    assert [[image["url"][-1] for image in row["images"]] for row in after] == [["0", "1"], [], []]
    assert [row["row"] for row in after] == [0, 1, 2]


def test_pieces_of_an_exchange_get_their_new_addresses(workspace: Workspace) -> None:
    def mention(url: str) -> dict[str, Any]:
        return {"key": 1, "url": url, "unit": "00000", "documents": 1}

    tables = {
        "00001": [mention("http://a.example/1"), mention("http://gone.example/1")],
        "00002": [mention("http://one.example/p.jpg")],
        "00003": [mention("http://a.example/3")],
    }
    workspace.leave("mentions", {to: pa.Table.from_pylist(rows, schema=MENTIONS) for to, rows in tables.items()})
    record = workspace.commit("f")
    after, _ = erase_files.rewrite("exchange/mentions/00000.arrows", record, workspace, MARKS)
    for to, urls in {"00001": ["http://a.example/1"], "00002": [], "00003": ["http://a.example/3"]}.items():
        reading = Workspace(workspace.root, "x", Unit(name=to, pieces=after.pieces[to]))
        assert reading.received("mentions", MENTIONS)["url"].to_pylist() == urls


def test_dead_letters_lose_their_lines(workspace: Workspace, tmp_path: Path) -> None:
    path = "dead_letters/extract/00000.jsonl"
    (tmp_path / path).parent.mkdir(parents=True)
    lines = [json.dumps({"detail": text}) + "\n" for text in ("http://a.example/", "GET http://gone.example/: 500")]
    (tmp_path / path).write_text("".join(lines))
    erase_files.rewrite(path, Commit(step="s", unit="00000", fingerprint="f"), workspace, MARKS)
    assert (tmp_path / path).read_text() == lines[0]


def tar_of(pictures: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sha256, data in pictures.items():
            info = tarfile.TarInfo(f"{sha256}.jpg")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_pictures_become_zeros_where_they_lie(which: tuple[int, ...], workspace: Workspace, tmp_path: Path) -> None:
    pictures = {f"{i}" * 64: bytes([65 + i]) * (700 + 1024 * i) for i in range(3)}
    names = list(pictures)
    gone = frozenset(names[i] for i in which)
    before = tar_of(pictures)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/00000.tar").write_bytes(before)
    marks = Marks(keys=KEYS, gone=gone)
    erase_files.rewrite("images/00000.tar", Commit(step="s", unit="00000", fingerprint="f"), workspace, marks)
    after = (tmp_path / "images/00000.tar").read_bytes()
    assert len(after) == len(before)
    with tarfile.open(tmp_path / "images/00000.tar") as tar, tarfile.open(fileobj=io.BytesIO(before)) as old:
        for was, member in zip(old.getmembers(), tar.getmembers(), strict=True):
            file = tar.extractfile(member)
            assert file is not None
            assert member.offset_data == was.offset_data
            if was.name.partition(".")[0] in gone:
                assert member.name == f"removed-{was.offset_data:012d}"
                assert file.read() == bytes(was.size)
            else:
                assert member.name == was.name
                assert file.read() == pictures[was.name.partition(".")[0]]


def test_every_fact_of_a_picture_is_known_to_the_scan() -> None:
    assert set(erase.HASHES) <= {*FACTS}
