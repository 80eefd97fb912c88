"""What a dataset's folder holds: four layouts, and what is left of them when they are damaged."""

import base64
import gc
import json
import logging
import os
import pickle
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from training_data import (
    document,
    documents_in,
    nearest_number,
    pair_members,
    picture,
    picture_number,
    pictures_of,
    sentence,
    write_documents,
    write_pairs,
    write_released,
    write_tar,
    write_videos,
)

from mmc4_builder.shards import Sample as Shard
from mmc4_builder.shards import write_shard
from train import sources, tar_index
from train.config import InterleavedConfig, Kind, PairsConfig, VideosConfig
from train.released import picture as picture_of
from train.sequences import Skip
from train.sources import DataError, Sample, Source, open_source
from train.tar_index import Handles, index_tar, split_name

DOCUMENTS = InterleavedConfig()


def everything(source: Source) -> list[Sample]:
    return [source.read(index) for index in range(len(source))]


def reason(source: Source, index: int) -> str:
    with pytest.raises(Skip) as caught:
        source.read(index)
    return caught.value.reason


# Documents


@pytest.mark.parametrize("below", ("", "shards", "shards/*.tar", "shards/0000[01].tar"))
def test_documents_of_a_build(tmp_path: Path, below: str) -> None:
    write_documents(tmp_path, [3, 2])
    source = open_source(tmp_path / below, DOCUMENTS)
    found = everything(source)
    assert not source.problems
    assert [sample.doc for sample in found] == documents_in(sorted((tmp_path / "shards").glob("*.tar")))
    assert [sample.images for sample in found] == [pictures_of(number, 2) for number in range(5)]
    assert [sample.key for sample in found][:4] == ["00000000000", "00000000001", "00000000002", "00001000000"]


def test_the_sample_of_a_tar_is_found_in_any_order(tmp_path: Path) -> None:
    source = open_source(write_documents(tmp_path, [4, 4]), DOCUMENTS)
    forwards = everything(source)
    assert [source.read(index) for index in (7, 0, 3, 5)] == [forwards[index] for index in (7, 0, 3, 5)]


def test_documents_with_base64(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw", [3])
    write_documents(tmp_path / "hex", [3], fmt="openflamingo")
    raw, packed = (everything(open_source(tmp_path / name, DOCUMENTS)) for name in ("raw", "hex"))
    assert [sample.images for sample in raw] == [sample.images for sample in packed]
    assert all("image_base64" not in str(sample.doc) for sample in packed)
    assert all(len(sample.key) == 32 for sample in packed)


def test_base64_that_is_missing_or_broken_costs_one_picture(tmp_path: Path) -> None:
    doc = document(0, images=4)
    good = base64.b64encode(picture(5)).decode()
    for entry, text in zip(doc["image_info"], (good, "%%%", None, 7), strict=True):
        if text is not None:
            entry["image_base64"] = text
    write_tar(tmp_path / "0.tar", [("ab.json", json.dumps(doc).encode())])
    assert open_source(tmp_path, DOCUMENTS).read(0).images == (picture(5), b"", None, b"")


def test_released_zips_and_a_folder_of_pictures(tmp_path: Path) -> None:
    source = open_source(write_released(tmp_path, [3, 2], missing=[1]), DOCUMENTS)
    found = everything(source)
    assert [sample.doc for sample in found] == [document(number) for number in range(5)]
    assert [sample.images for sample in found] == [
        (None, None) if number == 1 else pictures_of(number, 2) for number in range(5)
    ]
    assert everything(pickle.loads(pickle.dumps(source))) == found  # as a worker has it
    folder = Path(source._path).parent  # type: ignore[attr-defined]
    del source, found
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    "name", ("../secret.jpg", "/etc/passwd", "a/b.jpg", "", ".", "..", "pipe", "x\0y", None, 5, "large.jpg")
)
def test_names_of_pictures_lead_nowhere_else(tmp_path: Path, name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    inner = tmp_path / "images"
    inner.mkdir()
    os.mkfifo(inner / "pipe")
    (inner / "large.jpg").write_bytes(bytes(100))
    monkeypatch.setattr("train.released.MAX_MEMBER_BYTES", 99)
    assert picture_of(inner, name) == b""


@pytest.mark.parametrize("name", ("gone.jpg", "\ud800.jpg", "x" * 300))
def test_a_picture_that_is_not_there(tmp_path: Path, name: str) -> None:
    assert picture_of(tmp_path, name) is None


@pytest.mark.parametrize(
    ("members", "wanted"),
    (
        ([("a.json", b"{"), ("a.00.jpg", b"")], "bad_document"),
        ([("a.json", b"[]")], "bad_document"),
        ([("a.json", b'{"image_info": 3}')], "bad_document"),
        ([("a.json", b'{"image_info": [3]}')], "bad_document"),
        ([("a.json", b'{"x": NaN}')], "bad_document"),
        ([("a.00.jpg", b"x")], "no_document"),
    ),
)
def test_documents_that_are_none(tmp_path: Path, members: list[tuple[str, bytes]], wanted: str) -> None:
    write_tar(tmp_path / "0.tar", members)
    assert reason(open_source(tmp_path, DOCUMENTS), 0) == wanted


def test_pictures_by_number_where_the_document_names_none(tmp_path: Path) -> None:
    doc = json.dumps(document(0, images=3)).encode()
    write_tar(tmp_path / "0.tar", [("k.json", doc), ("k.02.jpg", b"two"), ("k.00.jpg", b"zero"), ("k.x.jpg", b"")])
    assert open_source(tmp_path, DOCUMENTS).read(0).images == (b"zero", None, b"two")


# Captions


def test_pairs_as_img2dataset_writes_them(tmp_path: Path) -> None:
    found = everything(open_source(write_pairs(tmp_path, [3, 2]), PairsConfig()))
    assert [(sample.key, sample.caption, sample.images) for sample in found] == [
        (f"{number:09d}", sentence(number), (picture(number),)) for number in range(5)
    ]


@pytest.mark.parametrize("extension", ("jpg", "jpeg", "png", "webp"))
def test_formats_of_pictures(tmp_path: Path, extension: str) -> None:
    write_tar(tmp_path / "0.tar", pair_members(7, extension=extension))
    assert open_source(tmp_path, PairsConfig()).read(0).images[0]


def test_videos(tmp_path: Path) -> None:
    found = everything(open_source(write_videos(tmp_path, [2], seconds=1), VideosConfig()))
    assert [(sample.caption, bool(sample.video), sample.images) for sample in found] == [
        (sentence(number), True, ()) for number in range(2)
    ]


@pytest.mark.parametrize(
    ("kind", "members", "wanted"),
    (
        (PairsConfig(), [("a.txt", b"x")], "no_picture"),
        (PairsConfig(), [("a.jpg", b"x")], "no_caption"),
        (PairsConfig(), [("a.jpg", b"x"), ("a.txt", b" \n")], "no_caption"),
        (PairsConfig(), [("a.jpg", b"x"), ("a.json", b'{"caption": null}')], "no_caption"),
        (VideosConfig(), [("a.txt", b"x"), ("a.jpg", b"x")], "no_video"),
    ),
)
def test_captions_without(tmp_path: Path, kind: Kind, members: list[tuple[str, bytes]], wanted: str) -> None:
    write_tar(tmp_path / "0.tar", members)
    assert reason(open_source(tmp_path, kind), 0) == wanted


def test_captions_of_odd_bytes_and_from_json(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "0.tar", [("a.jpg", b"x"), ("a.txt", b"caf\xe9"), ("b.jpg", b"y"), ("b.json", b'{"caption": "c"}')]
    )
    assert [sample.caption for sample in everything(open_source(tmp_path, PairsConfig()))] == ["caf\ufffd", "c"]


# Tars


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", (DOCUMENTS, PairsConfig()))
def test_webdataset_sees_the_same_samples(tmp_path: Path, kind: Kind) -> None:
    write = write_documents if kind is DOCUMENTS else write_pairs
    write(tmp_path, [4])
    source = open_source(tmp_path, kind)
    (tar,) = tmp_path.rglob("*.tar")
    theirs = list(webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False))
    gc.collect()
    assert [sample.key for sample in everything(source)] == [sample["__key__"] for sample in theirs]
    for sample, their in zip(everything(source), theirs, strict=True):
        pictures = [their[name] for name in sorted(their) if name.endswith("jpg")]
        assert list(sample.images) == pictures
        assert sample.caption == (None if kind is DOCUMENTS else their["txt"].decode())


LONG = "folder/" + "x" * 150


@pytest.mark.parametrize("layout", (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
@pytest.mark.parametrize("key", ("a", "folder.v2/a", LONG, "f\u00e4", "d/" * 60 + "e"))
def test_names_of_every_tar(tmp_path: Path, layout: int, key: str) -> None:
    path = tmp_path / "0.tar"
    try:
        with tarfile.open(path, "w", format=layout) as tar:
            for name in (f"{key}.jpg", "folder.d/", f"{key}.txt", "z.txt"):
                info = tarfile.TarInfo(name)
                info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
                info.mtime = 1.25
                tar.addfile(info)
    except ValueError:
        pytest.skip("USTAR has no room for this name")
    found = index_tar(path)
    with tarfile.open(path) as tar:
        starts = [member.offset for member in tar if member.isreg()]
    assert not found.damage and [start for start, _ in found.spans] == [starts[0], starts[2]]


@pytest.mark.parametrize(
    ("name", "wanted"),
    (
        ("a.jpg", ("a", "jpg")),
        ("a.b.JPG", ("a", "b.jpg")),
        ("x.y/a.00.jpg", ("x.y/a", "00.jpg")),
        ("./a.txt", ("./a", "txt")),
        ("README", None),
        (".hidden", None),
        ("x/.hidden.txt", None),
        ("a.", ("a", "")),
    ),
)
def test_keys(name: str, wanted: tuple[str, str] | None) -> None:
    assert split_name(name) == wanted


def damaged(path: Path, at: int, data: bytes | None) -> None:
    """Bytes put in at a place, or everything from there on cut off."""
    whole = path.read_bytes()
    path.write_bytes(whole[:at] if data is None else whole[:at] + data + whole[at + len(data) :])


@pytest.mark.parametrize(
    ("where", "data", "left"),
    (
        ("header", None, 3),
        ("header", b"\xff", 3),
        ("size", b"99999999", 3),
        ("half header", None, 3),
        ("last picture", None, 4),  # its document stays, without it
        ("end", None, 4),
    ),
)
def test_a_damaged_tar_gives_what_stands_before(
    tmp_path: Path, where: str, data: bytes | None, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    write_documents(tmp_path, [4, 2])
    path = tmp_path / "shards" / "00000.tar"
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    header, last = members[9], members[11]
    end = last.offset_data + -(-last.size // 512) * 512
    at = {"header": header.offset, "size": header.offset + 124, "half header": header.offset + 300,
          "last picture": last.offset_data + 10, "end": end}[where]  # fmt: skip
    damaged(path, at, data)
    with caplog.at_level(logging.WARNING):
        source = open_source(tmp_path, DOCUMENTS)
    assert source.problems["damaged_shard"] == 1 and len(source) == left + 2
    assert str(path) in caplog.text
    found = everything(source)
    assert [nearest_number_of(sample) for sample in found][:3] == [picture_number(number, 0) for number in range(3)]
    if where == "last picture":
        assert found[3].images[1] is None


def nearest_number_of(sample: Sample) -> int:
    import simplejpeg

    return nearest_number(simplejpeg.decode_jpeg(sample.images[0]).transpose(2, 0, 1))


@given(at=st.integers(0, 8000), data=st.binary(min_size=1, max_size=600))
def test_any_damage_is_borne(tmp_path_factory: pytest.TempPathFactory, at: int, data: bytes) -> None:
    path = write_tar(
        tmp_path_factory.mktemp("tar") / "0.tar", [m for n in range(3) for m in pair_members(n)], mtime=0.5
    )
    damaged(path, at, data)
    try:
        source = open_source(path, PairsConfig())
    except DataError:
        return
    for index in range(len(source)):
        try:
            source.read(index)
        except Skip as skip:
            assert skip.reason in {"damaged_shard", "no_caption", "no_picture", "bad_document"}


def test_sizes_json_tells_what_is_missing(tmp_path: Path) -> None:
    write_documents(tmp_path, [2, 2, 2])
    (tmp_path / "shards" / "00001.tar").unlink()
    (tmp_path / "shards" / "sizes.json").write_text('{"00000.tar": 2, "00001.tar": 2, "00002.tar": 5}')
    source = open_source(tmp_path, DOCUMENTS)
    assert len(source) == 4 and source.problems == {"missing_shard": 1, "shard_of_other_size": 1}


@pytest.mark.parametrize("text", ("{", "[]", ""))
def test_a_sizes_json_of_something_else(tmp_path: Path, text: str) -> None:
    write_documents(tmp_path, [2])
    (tmp_path / "shards" / "sizes.json").write_text(text)
    assert not open_source(tmp_path, DOCUMENTS).problems


def test_caps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(write_pairs(tmp_path, [1]), PairsConfig())
    monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 100)
    assert reason(source, 0) == "too_many_bytes"
    monkeypatch.setattr(sources, "MAX_SAMPLE_BYTES", 1000)
    assert reason(source, 0) == "too_many_bytes"


def test_a_tar_that_goes_away_costs_its_samples(tmp_path: Path) -> None:
    source = open_source(write_pairs(tmp_path, [1, 1]), PairsConfig())
    (tmp_path / "00000.tar").unlink()
    assert reason(source, 0) == "damaged_shard"
    assert source.read(1).caption == sentence(1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    ((DOCUMENTS, "shards/"), (PairsConfig(), "jpg/jpeg/png/webp"), (VideosConfig(), "mp4/webm/mkv/avi")),
)
@pytest.mark.parametrize("below", ("", "missing", "*.tar"))
def test_nothing_found_names_the_path_and_what_was_expected(
    tmp_path: Path, kind: Kind, expected: str, below: str
) -> None:
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / below, kind)
    assert str(tmp_path / below) in str(caught.value) and expected in str(caught.value)


@pytest.mark.parametrize("members", ([], [("README", b"x")]))
def test_tars_without_samples(tmp_path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    write_tar(tmp_path / "0.tar", members)
    with pytest.raises(DataError, match="no sample in 1 tars"):
        open_source(tmp_path, PairsConfig())


@pytest.mark.parametrize("data", (b"", b"x" * 5000, b"PK\3\4"))
def test_nothing_but_damage(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "0.tar").write_bytes(data)
    with pytest.raises(DataError, match="build or copy them again"):
        open_source(tmp_path, DOCUMENTS)
    (tmp_path / "0.tar").rename(tmp_path / "docs_shard_0_v2.jsonl.zip")
    with pytest.raises(DataError, match="fetch it again"):
        open_source(tmp_path, DOCUMENTS)


def test_few_files_are_open(tmp_path: Path) -> None:
    handles = Handles(limit=2)
    for number in range(5):
        (tmp_path / str(number)).write_bytes(b"0123456789")
    before = len(os.listdir("/proc/self/fd"))
    for number in (0, 1, 2, 0, 3, 4, 4):
        assert handles.read(str(tmp_path / str(number)), 3, 2) == b"34"
    assert len(os.listdir("/proc/self/fd")) == before + 2
    handles.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_another_process_reads_on(tmp_path: Path) -> None:
    source = open_source(write_pairs(tmp_path, [3]), PairsConfig())
    assert everything(pickle.loads(pickle.dumps(source))) == everything(source)


def test_the_index_is_small(tmp_path: Path) -> None:
    """24 bytes a sample, whatever is in it."""
    samples = [Shard(key=f"{n:05d}", doc=document(n, images=1), images=pictures_of(n, 1)) for n in range(3)]
    with (tmp_path / "0.tar").open("wb") as stream:
        write_shard(stream, samples)
    source = open_source(tmp_path, DOCUMENTS)
    assert source._spans.nbytes == 24 * 3  # type: ignore[attr-defined]
    assert tar_index.index_tar(tmp_path / "0.tar").spans[0][0] == 0
