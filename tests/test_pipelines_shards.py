"""Stage 5: tars of documents and pictures, each traceable to the bytes that it was made from."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from small_crawls import (
    agrees,
    article,
    assert_adds_up,
    counts,
    jpeg,
    page,
    paragraphs,
    picture,
    plan,
    prose,
    rows,
    run,
    run_until,
    write,
    write_scores,
)

from mmc4_builder.images import normalise
from mmc4_builder.mmc4_format import read_docs_zip
from mmc4_builder.shards import Sample, plan_shards, read_members, read_shard
from mmc4_builder.warc import read_record
from mmc4_builder.workspace import Unit, Workspace
from pipelines import shards
from pipelines.config import ShardsConfig
from pipelines.plan import Plan
from pipelines.shards import Shards, Tars

URLS = [f"http://{host}.example/{n}.jpg" for host in ("one", "two", "three") for n in range(3)]
LIMIT = 3


@pytest.fixture(scope="module")
def interleaved(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Seven documents in three docs shards, of which one is empty; the first document of each is dropped."""
    folder = tmp_path_factory.mktemp("shards")
    first = [article(f"first{n}", URLS[n], URLS[n + 3], URLS[n + 6]) for n in range(3)]
    dropped = [article(f"dropped{n}", "http://x.example/absent.jpg") for n in range(3)]
    third = [article(f"third{n}", URLS[n]) for n in range(4)]
    signals = page(
        "http://signals.example/",
        paragraphs(prose("signals")) + f'<img src="{URLS[8]}">',
        ("TDM-Reservation", "0"),
    )
    kept = [picture(url, seed) for seed, url in enumerate(URLS)]
    crawl = write(folder / "crawl", [dropped[0], *first], dropped[1:2], [dropped[2], *third[:3], signals, *kept])
    made = plan(folder / "out", crawl, shards=ShardsConfig(documents=LIMIT))
    run_until(made, "images")
    # A third sentence that all like best: the order of the pictures in a document is not the order of sentences.
    write_scores(made, lambda url, sentence: 0.3 + 0.1 * ((len(url) + URLS.index(url) + sentence) % 4))
    run(made.stage("interleave").transform)
    return made


@pytest.fixture(scope="module")
def built(interleaved: Plan) -> Plan:
    counters = run(interleaved.stage("shards").transform)
    assert agrees(counters, counts(interleaved, "shards"))
    return interleaved


def samples(made: Plan) -> list[list[Sample]]:
    return [list(read_shard(path)) for path in sorted(Path(made.root, "shards").glob("?????.tar"))]


def docs(made: Plan) -> list[dict[str, object]]:
    return [doc for path in sorted(Path(made.root, "docs").iterdir()) for doc in read_docs_zip(path)]


def test_every_document_is_in_one_tar_in_order(built: Plan) -> None:
    tars = samples(built)
    assert [len(tar) for tar in tars] == [3, 3, 1]
    assert [s.doc["url"] for tar in tars for s in tar] == [doc["url"] for doc in docs(built)]
    assert len({sample.key for tar in tars for sample in tar}) == 7
    counted = counts(built, "shards")["shards"]
    assert_adds_up(counted)
    assert counted == {"samples.entered": 7, "samples.kept": 7}


def test_units_say_which_documents_they_hold(built: Plan) -> None:
    """A tar may span several docs shards; the empty one gives nothing."""
    (work,) = built.stage("shards").work
    assert [unit.inputs for unit in work.units] == [("0:0:3",), ("2:0:3",), ("2:3:4",)]
    assert [u.inputs for u in shards.plan(plan_shards([2, 0, 3], 4))] == [("0:0:2", "2:0:2"), ("2:2:3",)]


def test_pictures_are_those_that_the_document_names(built: Plan) -> None:
    for sample in (sample for tar in samples(built) for sample in tar):
        for info, data in zip(sample.doc["image_info"], sample.images, strict=True):
            assert data == normalise(jpeg(URLS.index(info["raw_url"]))).data
            assert hashlib.sha256(data).hexdigest() == info["sha256"]


def test_documents_can_be_traced(built: Plan) -> None:
    for sample in (sample for tar in samples(built) for sample in tar):
        source = sample.doc["provenance"]
        record = read_record(f"{built.crawl.root}/{source['warc']}", source["offset"], source["length"])
        assert (record.url, record.timestamp) == (sample.doc["url"], source["timestamp"])
        assert record.digest == source["digest"]
        for info in sample.doc["image_info"]:
            assert (info["origin"], info["fetched"]) == ("archive", "2024-03-01T12:00:00Z")
    assert sample.doc["url"] == "http://signals.example/"
    assert source["signals"] == [["header:tdm-reservation", "0"]]


def test_the_order_of_the_page_stands_beside_that_of_clip(built: Plan) -> None:
    first = samples(built)[0][0]
    plain = docs(built)[0]
    assert {name: first.doc[name] for name in plain if name != "image_info"} == {
        name: plain[name] for name in plain if name != "image_info"
    }
    assert [info["dom_text_index"] for info in first.doc["image_info"]] == [1, 1, 1]
    assert len({info["matched_text_index"] for info in first.doc["image_info"]}) == 3
    assert first.doc["image_info"][0]["alt"].startswith("what ")


def test_members_lie_side_by_side(built: Plan) -> None:
    names = [member.name for member, _ in read_members(Path(built.root, "shards/00000.tar"))]
    assert names[:5] == [
        "00000000000.json",
        *(f"00000000000.{i:02d}.jpg" for i in range(3)),
        "00000000001.json",
    ]


def test_openflamingos_layout(built: Plan) -> None:
    """Redone in place: other names, the same documents and pictures."""
    before = samples(built)
    other = replace(built, build=replace(built.build, shards=ShardsConfig(documents=4, format="openflamingo")))
    run(other.stage("shards").transform)
    found = [list(read_shard(path)) for path in sorted(Path(built.root, "shards").glob("?????????.tar"))]
    assert [len(tar) for tar in found] == [4, 3]
    both = [[s.images for tar in tars for s in tar] for tars in (before, found)]
    assert both[0] == both[1]


def test_no_documents_no_tars(tmp_path: Path) -> None:
    made = plan(tmp_path / "out", write(tmp_path / "crawl", [article("bare")]))
    run_until(made, "images")
    write_scores(made, lambda *_: 0.0)
    run(made.stage("interleave").transform)
    stage = made.stage("shards")
    assert stage.total == 0
    assert isinstance(stage.transform, Shards)
    assert run(stage.transform) == {}
    assert not Path(made.root, "shards").exists()


def test_few_tars_are_open_at_a_time(built: Plan) -> None:
    """More stores than may be open: each picture is read right all the same."""
    stored = [row for row in rows(built.root, "images") if row["sha256"]]
    assert len({row["store"] for row in stored}) > 1
    with Tars(Workspace(built.root, "report", Unit(name="00000")), most=1) as tars:
        for row in (*stored, *stored[::-1]):
            assert hashlib.sha256(tars.read(row)).hexdigest() == row["sha256"]
            assert len(tars._open) == 1
    assert not tars._open
