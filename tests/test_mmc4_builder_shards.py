"""The training tars: same bytes every time, readable by WebDataset and by OpenFlamingo's loader."""

import gc
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from consumers import openflamingo, tar_samples, vila
from hypothesis import given
from hypothesis import strategies as st
from mmc4_corpus import document, jpeg, released_docs, sample, write_corpus
from PIL import Image

from mmc4_builder.match import assign
from mmc4_builder.mmc4_format import FormatError, MatchedDocument, match_images, to_json
from mmc4_builder.shards import (
    Format,
    Sample,
    hex_key,
    member_name,
    plan_shards,
    read_shard,
    sample_key,
    shard_name,
    sizes_json,
    write_shard,
)

FORMATS: tuple[Format, ...] = ("mmc4", "openflamingo")


def tarred(samples: list[Sample], fmt: Format = "mmc4") -> bytes:
    out = io.BytesIO()
    assert write_shard(out, iter(samples), fmt) == len(samples)
    assert not out.closed
    return out.getvalue()


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


@pytest.fixture
def samples() -> list[Sample]:
    return [sample(7, seed, document(seed, images=1 + seed)) for seed in range(3)]


def test_a_document_stands_before_its_pictures(samples: list[Sample]) -> None:
    assert [info.name for info in members(tarred(samples))] == [
        "00007000000.json",
        "00007000000.00.jpg",
        "00007000001.json",
        "00007000001.00.jpg",
        "00007000001.01.jpg",
        "00007000002.json",
        "00007000002.00.jpg",
        "00007000002.01.jpg",
        "00007000002.02.jpg",
    ]


def test_a_document_names_its_members_and_keeps_its_provenance(samples: list[Sample]) -> None:
    data = tarred(samples)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        doc = json.load(tar.extractfile("00007000001.json"))  # type: ignore[arg-type]
        for image, expected in zip(doc["image_info"], samples[1].images, strict=True):
            assert tar.extractfile(image["member"]).read() == expected  # type: ignore[union-attr]
    assert doc["provenance"] == {"warc": "crawl.warc.gz", "offset": 100}
    assert list(doc)[:4] == ["url", "text_list", "image_info", "similarity_matrix"]


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_same_samples_make_the_same_bytes(samples: list[Sample], fmt: Format) -> None:
    data = tarred(samples, fmt)
    assert data == tarred(samples, fmt)
    for info in members(data):
        assert (info.mtime, info.uid, info.gid, info.mode, info.uname) == (0, 0, 0, 0o644, "")
        assert len(info.name) <= 100 and not info.pax_headers


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_shard_comes_back(samples: list[Sample], fmt: Format, tmp_path: Path) -> None:
    path = tmp_path / shard_name(0, fmt)
    path.write_bytes(tarred(samples, fmt))
    for source in (path, str(path), io.BytesIO(path.read_bytes())):
        again = list(read_shard(source))
        assert [found.images for found in again] == [given.images for given in samples]
        assert [found.doc["url"] for found in again] == [given.doc["url"] for given in samples]
    if fmt == "openflamingo":
        assert [found.doc for found in again] == [given.doc for given in samples]
        assert [found.key for found in again] == [hex_key(given.key) for given in samples]
    else:
        assert [found.key for found in again] == [given.key for given in samples]


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_empty_shard_is_a_tar(fmt: Format) -> None:
    assert list(read_shard(io.BytesIO(tarred([], fmt)))) == []


webdataset_leaves_files_open = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def read_with_webdataset(path: Path, prepare: Callable[[webdataset.WebDataset], Iterable]) -> list:
    found = list(prepare(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)))
    gc.collect()  # so that what it leaves open is noticed in the test that allows it
    return found


@webdataset_leaves_files_open
def test_webdataset_reads_the_mmc4_layout(tmp_path: Path) -> None:
    write_corpus(tmp_path, [[document(seed) for seed in range(5)]], per_shard=5)
    found = read_with_webdataset(tmp_path / "shards" / shard_name(0), lambda data: data.decode("pil"))
    assert [item["__key__"] for item in found] == [sample_key(0, position) for position in range(5)]
    for item in found:
        assert [item[f"{row:02d}.jpg"].size for row in range(2)] == [(24, 24), (24, 24)]
        assert isinstance(item["00.jpg"], Image.Image)
        assert [image["member"] for image in item["json"]["image_info"]] == [
            f"{item['__key__']}.{row:02d}.jpg" for row in range(2)
        ]


@webdataset_leaves_files_open
def test_webdataset_reads_the_openflamingo_layout(tmp_path: Path) -> None:
    docs = [document(seed) for seed in range(4)]
    write_corpus(tmp_path, [docs], per_shard=4, fmt="openflamingo")
    path = tmp_path / "shards" / "000000000.tar"
    found = [json.loads(data) for (data,) in read_with_webdataset(path, lambda data: data.to_tuple("json"))]
    assert [doc["url"] for doc in found] == [doc["url"] for doc in docs]
    assert all("image_base64" in image for doc in found for image in doc["image_info"])


def test_openflamingo_reads_ours_and_swaps_no_picture(tmp_path: Path) -> None:
    docs = [document(seed, images=4, sentences=9) for seed in range(20)]
    write_corpus(tmp_path, [docs], per_shard=10, fmt="openflamingo")
    sequences = list(openflamingo(sorted((tmp_path / "shards").glob("*.tar")), min_bytes=1))
    assert len(sequences) == 20
    assert not any(sequence.swapped for sequence in sequences)
    for sequence, doc in zip(sequences, docs, strict=True):
        assert sequence.text.count("<image>") == len(sequence.images)
        stored = [doc["image_info"][row]["matched_text_index"] for row in sequence.images]
        assert stored == list(sequence.sentences)


def test_sorting_saves_the_released_documents_from_swapped_pictures(tmp_path: Path) -> None:
    docs = released_docs()
    if not docs:
        pytest.skip("the released documents are not beside this checkout")
    swapped = []
    for folder, listed in (("released", docs), ("ours", [rebuilt(doc) for doc in docs])):
        write_corpus(tmp_path / folder, [listed], per_shard=100, fmt="openflamingo")
        tars = [tmp_path / folder / "shards" / "000000000.tar"]
        swapped.append(sum(sequence.swapped for sequence in openflamingo(tars, min_bytes=1)))
    assert swapped[0] >= 20  # of 53
    assert swapped[1] == 0


def rebuilt(doc: dict) -> dict:
    similarity = np.array(doc["similarity_matrix"], dtype=np.float32)
    return to_json(
        MatchedDocument(
            url=doc["url"],
            sentences=tuple(doc["text_list"]),
            images=match_images([image["raw_url"] for image in doc["image_info"]], similarity, assign(similarity)),
            similarity=similarity,
        )
    )


def test_openflamingo_drops_small_pictures(tmp_path: Path) -> None:
    write_corpus(tmp_path, [[document(0)]], fmt="openflamingo")
    assert len(jpeg()) < 11_000
    assert list(openflamingo([tmp_path / "shards" / "000000000.tar"])) == []


def test_vila_finds_every_picture(tmp_path: Path) -> None:
    write_corpus(tmp_path, [[document(seed, images=8, sentences=9) for seed in range(3)]], fmt="openflamingo")
    docs = [json.loads(found["json"]) for found in tar_samples(tmp_path / "shards" / "000000000.tar")]
    sequences = list(vila(docs))
    assert [len(sequence.images) for sequence in sequences] == [6, 6, 6]
    assert not any(sequence.swapped for sequence in sequences)


@pytest.mark.parametrize(
    "count, first, last",
    [
        (1, "k.00.jpg", "k.00.jpg"),
        (100, "k.00.jpg", "k.99.jpg"),
        (101, "k.000.jpg", "k.100.jpg"),
        (1000, "k.000.jpg", "k.999.jpg"),
        (1001, "k.0000.jpg", "k.1000.jpg"),
    ],
)
def test_member_names_sort_however_many(count: int, first: str, last: str) -> None:
    names = [member_name("k", index, count) for index in range(count)]
    assert (names[0], names[-1]) == (first, last)
    assert names == sorted(names)


def test_more_than_a_hundred_pictures_come_back_in_order() -> None:
    given = sample(0, 0, document(1, images=117, sentences=3))
    (found,) = read_shard(io.BytesIO(tarred([given])))
    assert found.images == given.images
    assert found.doc["image_info"][116]["member"] == "00000000000.116.jpg"


GOOD = sample(0, 0, document(1))


@pytest.mark.parametrize(
    "bad, message",
    [
        ([Sample(key="a.b", doc=GOOD.doc, images=GOOD.images)], "a dot would cut it"),
        ([Sample(key="", doc=GOOD.doc, images=GOOD.images)], "must match"),
        ([Sample(key="k" * 65, doc=GOOD.doc, images=GOOD.images)], "must match"),
        ([Sample(key="../k", doc=GOOD.doc, images=GOOD.images)], "must match"),
        ([GOOD, GOOD], "comes twice"),
        ([Sample(key="k", doc=GOOD.doc, images=GOOD.images[:1])], "lists 2 images and carries 1"),
        ([Sample(key="k", doc=GOOD.doc, images=(b"\x89PNG", b""))], "image 0 of k is no JPEG"),
        ([Sample(key="k", doc={**GOOD.doc, "is_gpt": 1}, images=GOOD.images)], "is_gpt"),
        ([Sample(key="k", doc={**GOOD.doc, "x": float("nan")}, images=GOOD.images)], "cannot be written"),
    ],
)
@pytest.mark.parametrize("fmt", FORMATS)
def test_samples_that_no_reader_could_use_are_refused(bad: list[Sample], message: str, fmt: Format) -> None:
    out = io.BytesIO()
    with pytest.raises(FormatError, match=message):
        write_shard(out, bad, fmt)
    assert not out.closed


CUT = tarred([GOOD])


def raw_tar(parts: list[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in parts:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data), kind
            tar.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


@pytest.mark.parametrize(
    "data, message",
    [
        (io.BytesIO(b"no tar" * 200), "cannot be read"),
        (io.BytesIO(CUT[:3000]), "cannot be read"),
        (io.BytesIO(CUT[: CUT.index(b"00000000000.00.jpg\0")]), "cannot be read"),
        (io.BytesIO(CUT[: CUT.index(b"00000000000.00.jpg\0") + 9]), "cannot be read"),
        (io.BytesIO(CUT.replace(b"0000644", b"0000zzz")), "cannot be read"),
        (io.BytesIO(CUT.replace(b"00000000000.01.jpg\0", b"spoilt\0")), "cannot be read"),
        (raw_tar([("k.00.jpg", b"x")]), "before its document"),
        (raw_tar([("k.json", b"{}"), ("l.00.jpg", b"x")]), "before its document"),
        (raw_tar([("k.json", b"{")]), "k.json is not JSON"),
        (raw_tar([("k.json", b"")], kind=tarfile.SYMTYPE), "no plain file"),
        (raw_tar([("k.json", b'{"image_info": [{"image_base64": "*"}]}')]), "cannot be decoded"),
        (raw_tar([("k.json", b'{"image_info": [{"image_base64": 5}]}')]), "cannot be decoded"),
    ],
)
def test_a_damaged_tar_is_a_format_error(data: io.BytesIO, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        list(read_shard(data))


def test_names_of_shards() -> None:
    assert [shard_name(0), shard_name(99_999)] == ["00000.tar", "99999.tar"]
    assert shard_name(23_098, "openflamingo") == "000023098.tar"
    for number in (-1, 100_000):
        with pytest.raises(ValueError, match=f"shard {number} does not fit the 5 digits"):
            shard_name(number)


def test_sizes_name_every_shard() -> None:
    assert json.loads(sizes_json([1000, 3])) == {"00000.tar": 1000, "00001.tar": 3}
    assert json.loads(sizes_json([2], "openflamingo")) == {"000000000.tar": 2}
    assert json.loads(sizes_json([])) == {}


@pytest.mark.parametrize(
    "counts, per_shard, plan",
    [
        ([], 3, []),
        ([0, 0], 3, []),
        ([3], 3, [[(0, 0, 3)]]),
        ([7], 3, [[(0, 0, 3)], [(0, 3, 6)], [(0, 6, 7)]]),
        ([2, 0, 2, 3], 3, [[(0, 0, 2), (2, 0, 1)], [(2, 1, 2), (3, 0, 2)], [(3, 2, 3)]]),
    ],
)
def test_plans(counts: list[int], per_shard: int, plan: list) -> None:
    assert plan_shards(counts, per_shard) == plan


@given(st.lists(st.integers(0, 20), max_size=12), st.integers(1, 15))
def test_a_plan_takes_each_document_once_in_order(counts: list[int], per_shard: int) -> None:
    plan = plan_shards(counts, per_shard)
    taken = [(source, at) for spans in plan for source, start, stop in spans for at in range(start, stop)]
    assert taken == [(source, at) for source, count in enumerate(counts) for at in range(count)]
    sizes = [sum(stop - start for _, start, stop in spans) for spans in plan]
    assert all(size == per_shard for size in sizes[:-1])
    assert all(0 < size <= per_shard for size in sizes)


@pytest.mark.parametrize("counts, per_shard", [([1], 0), ([1], -5), ([3, -1], 2)])
def test_a_plan_without_sense_is_refused(counts: list[int], per_shard: int) -> None:
    with pytest.raises(ValueError):
        plan_shards(counts, per_shard)
