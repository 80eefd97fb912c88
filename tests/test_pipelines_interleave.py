"""Stage 4: documents in MMC4's own format, and a decision on every picture, from scores chosen by the test."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_crawls import (
    agrees,
    article,
    assert_adds_up,
    counts,
    img,
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
from mmc4_builder.match import assign
from mmc4_builder.mmc4_format import read_docs_zip
from mmc4_builder.warc import Response
from pipelines.config import InterleaveConfig
from pipelines.plan import Plan

NAMES = ("first", "second", "low", "copy", "dead")
A, B, LOW, COPY, DEAD = (f"http://x.example/{name}.jpg" for name in NAMES)
SIMILARITY = {A: (0.2, 0.4, 0.1, 0.1), B: (0.1, 0.3, 0.1, 0.2), LOW: (0.1, 0.1, 0.14, 0.1), COPY: (0.5,) * 4}


def similarity(url: str, sentence: int) -> float:
    return SIMILARITY.get(url, (0.16, 0.16, 0.16, 0.16))[sentence % 4]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Two files: a document with a picture for each reason, one that keeps nothing, one whose pictures all stay."""
    folder = tmp_path_factory.mktemp("interleave")
    lines = prose("mill")
    body = paragraphs(lines[:2]) + img(DEAD, A, COPY) + paragraphs(lines[2:]) + img(B, LOW)
    copy = replace(picture(COPY), payload=jpeg(1, quality=60))  # of A, which comes first
    dead = Response(url=DEAD, timestamp="2024-03-01T12:00:00Z", payload=b"", status=404)
    pictures = [picture(A, 1), picture(B, 2), picture(LOW, 3), copy, dead]
    first = [page("http://mill.example/", body), article("hollow", LOW), *pictures]
    crawl = write(folder / "crawl", first, [article("well", B)], [article("bare")])
    made = plan(folder / "out", crawl)
    run_until(made, "images")
    write_scores(made, similarity)
    return made


@pytest.fixture(scope="module")
def built(scored: Plan) -> Plan:
    counters = run(scored.stage("interleave").transform)
    assert agrees(counters, counts(scored, "interleave"))
    return scored


def documents(made: Plan, number: int, version: int = 2) -> list[dict[str, Any]]:
    return list(read_docs_zip(Path(made.root, f"docs/docs_shard_{number}_v{version}.jsonl.zip")))


def decisions(made: Plan) -> dict[str, dict[str, Any]]:
    urls = [row["url"] for row in rows(made.root, "documents")]
    return dict(zip(urls, rows(made.root, "interleave"), strict=True))


def test_counts_add_up(built: Plan) -> None:
    counted = counts(built, "interleave")["interleave"]
    assert_adds_up(counted)
    assert counted == {
        "documents.entered": 3,
        "documents.kept": 2,
        "documents.dropped.no_images_left": 1,
        "documents.written": 2,
        "images.entered": 7,
        "images.kept": 3,
        "images.dropped.low_similarity": 2,
        "images.dropped.missing": 1,
        "images.dropped.near_duplicate": 1,
    }


def test_a_docs_shard_for_each_file_also_for_one_without_documents(built: Plan) -> None:
    assert [len(documents(built, number)) for number in range(3)] == [1, 1, 0]


def test_documents_have_the_form_of_mmc4(built: Plan) -> None:
    (document,) = documents(built, 0)
    assert document["url"] == "http://mill.example/"
    assert document["text_list"] == prose("mill")
    assert document["could_have_url_duplicate"] == 0
    assert [image["raw_url"] for image in document["image_info"]] == [A, B]
    matrix = np.asarray(document["similarity_matrix"], np.float32)
    np.testing.assert_array_equal(matrix, np.asarray([SIMILARITY[A], SIMILARITY[B]], np.float32))
    assert [image["matched_text_index"] for image in document["image_info"]] == assign(matrix).tolist() == [1, 3]
    for image, index, row in zip(document["image_info"], (1, 3), matrix, strict=True):
        assert np.float32(image["matched_sim"]) == row[index]


def test_every_picture_has_a_decision(built: Plan) -> None:
    decision = decisions(built)["http://mill.example/"]
    assert (decision["reason"], decision["line"]) == (None, 0)
    assert [(image["url"], image["reason"]) for image in decision["images"]] == [
        (DEAD, "missing"),
        (A, None),
        (COPY, "near_duplicate"),
        (B, None),
        (LOW, "low_similarity"),
    ]
    kept = [image for image in decision["images"] if image["reason"] is None]
    (document,) = documents(built, 0)
    for image, info in zip(kept, document["image_info"], strict=True):
        assert image["image_name"] == info["image_name"]
        assert image["matched_text_index"] == info["matched_text_index"]
        assert np.float32(image["matched_sim"]) == np.float32(info["matched_sim"])
        assert image["sha256"] == normalise(jpeg(NAMES.index(image["url"][17:-4]) + 1)).sha256
        assert image["position"] == (2 if image["url"] == A else 4)
    low = decision["images"][-1]
    assert (low["image_name"], low["matched_text_index"], low["best_sim"]) == (None, None, np.float32(0.14))
    assert decision["images"][0]["best_sim"] is None


def test_a_document_that_goes_has_no_line(built: Plan) -> None:
    decision = decisions(built)["http://hollow.example/"]
    assert (decision["reason"], decision["line"]) == ("no_images_left", None)
    assert [image["reason"] for image in decision["images"]] == ["low_similarity"]


def test_another_policy_runs_on_the_same_scores(scored: Plan) -> None:
    """The core subset under its own names; pictures of a document that goes, go with it."""
    policy = InterleaveConfig(sentences=(4, 40), images=(2, 15), min_core_fraction=0.5, core=True)
    core = replace(scored, build=replace(scored.build, interleave=policy))
    run(core.stage("interleave").transform)
    assert [len(documents(core, number, 3)) for number in range(3)] == [1, 0, 0]
    decision = decisions(core)["http://well.example/"]
    assert (decision["reason"], [image["reason"] for image in decision["images"]]) == (
        "too_few_images",
        ["document_dropped"],
    )
    counted = counts(core, "interleave")["interleave"]
    assert_adds_up(counted)
    assert counted["images.dropped.document_dropped"] == 1
    run(scored.stage("interleave").transform)  # as others expect it


def test_zips_are_the_same_bytes_each_time(built: Plan) -> None:
    path = Path(built.root, "docs/docs_shard_0_v2.jsonl.zip")
    before = path.read_bytes()
    path.unlink()
    run(built.stage("interleave").transform)
    assert path.read_bytes() == before
