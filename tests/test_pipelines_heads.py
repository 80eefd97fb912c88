"""Stage 3's small models: opinions on stored pictures from vectors at rest, each file told of what it names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_crawls import article, counts, jpeg, picture, plan, rows, run, run_until, write

from filters import faces, nsfw
from mmc4_builder import commits
from mmc4_builder.images import normalise
from mmc4_builder.workspace import Unit, Workspace
from pipelines import heads
from pipelines.config import ScoresConfig
from pipelines.plan import Plan
from pipelines.schemas import OPINIONS

A, B, NEAR = (f"http://x.example/{name}.jpg" for name in ("a", "b", "near"))
GONE = "http://x.example/gone.jpg"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Six documents show one picture, a seventh a smaller copy of it; another picture is shown once, one is dead."""
    folder = tmp_path_factory.mktemp("heads")
    topics = ("mill", "well", "barn", "ford", "glen", "moor")
    first = [*(article(topic, A) for topic in topics), picture(A, 1), picture(B, 2)]
    near = replace(picture(NEAR), payload=jpeg(1, quality=50))
    made = plan(folder / "out", write(folder / "crawl", first, [article("lane", NEAR, B, GONE), near]))
    run_until(made, "images")
    return made


def scored(made: Plan, **config: Any) -> Plan:
    scores = replace(ScoresConfig(clip="tiny"), **config)
    again = replace(made, build=replace(made.build, scores=scores))
    run(again.stage("scores").transform)
    return again


def told(made: Plan, unit: str) -> dict[str, dict[str, Any]]:
    """Opinions that documents file `unit` gets, by URL."""
    sent = commits.load_all(made.root, "heads", [bucket.name for bucket in made.buckets])
    pieces = tuple(piece for commit in sent for piece in commit.pieces.get(unit, ()))
    workspace = Workspace(made.root, "elsewhere", Unit(name=unit, pieces=pieces))
    return {row.pop("url"): row for row in workspace.received("opinions", OPINIONS).to_pylist()}


@pytest.fixture(scope="module")
def judged(stored: Plan) -> Plan:
    return scored(stored, nsfw="tiny", faces="tiny")


def test_only_what_is_stored_is_told_to_those_that_name_it(judged: Plan) -> None:
    assert (set(told(judged, "00000")), set(told(judged, "00001"))) == ({A}, {NEAR, B})


def test_near_copies_count_with_a_frequent_picture(judged: Plan) -> None:
    found = told(judged, "00000") | told(judged, "00001")
    codes = [normalise(jpeg(1, quality=quality)).phash for quality in (85, 50)]
    assert 0 < (codes[0] ^ codes[1]).bit_count() <= 5  # or the test would show nothing
    assert {url: opinion["occurrences"] for url, opinion in found.items()} == {A: 6, NEAR: 6, B: 1}


def test_probabilities_are_those_of_the_heads_on_the_vectors_at_rest(judged: Plan) -> None:
    vectors = {row["sha256"]: np.asarray(row["clip"], np.float32) for row in rows(judged.root, "scores/images")}
    stored_as = {row["url"]: row["sha256"] for row in rows(judged.root, "images")}
    for url, opinion in (told(judged, "00000") | told(judged, "00001")).items():
        vector = vectors[stored_as[url]][None]
        assert opinion["nsfw"] == nsfw.score(vector, nsfw.load("tiny"))[0]
        assert opinion["face"] == faces.score(vector, faces.load("tiny"))[0]
        assert opinion["faces"] is None and opinion["evaluation_distance"] is None


def test_opinions_are_also_kept_by_hash(judged: Plan) -> None:
    kept = {row.pop("sha256"): row for row in rows(judged.root, "scores/opinions")}
    stored_as = {row["url"]: row["sha256"] for row in rows(judged.root, "images")}
    assert kept[stored_as[B]] == told(judged, "00001")[B]


def test_models_that_are_not_asked_have_no_opinion(stored: Plan) -> None:
    made = scored(stored)
    assert {(o["nsfw"], o["face"]) for o in told(made, "00001").values()} == {(None, None)}


def test_another_head_embeds_nothing_anew(stored: Plan) -> None:
    made = scored(stored)
    before = {path: path.stat().st_mtime_ns for path in Path(made.root, "scores").rglob("*.parquet")}
    again = replace(made, build=replace(made.build, scores=replace(made.build.scores, nsfw="tiny")))
    counters = run(again.stage("scores").transform)
    assert counters == {}  # no model is even loaded: RunInference would have counted
    touched = {path.parent.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert touched == {"opinions"}


def test_pictures_of_an_evaluation_set(stored: Plan, tmp_path: Path) -> None:
    """One that is the same, one that is no picture and is buried; the distance of everything else is large."""
    (tmp_path / "held_out").mkdir()
    (tmp_path / "held_out/coco.jpg").write_bytes(jpeg(2, quality=60))
    (tmp_path / "held_out/notes.txt").write_text("no picture")
    made = scored(stored, evaluation=str(tmp_path / "held_out"))
    found = told(made, "00001")
    assert found[B]["evaluation_distance"] <= 2 and found[B]["evaluation_similarity"] > 0.95
    assert found[NEAR]["evaluation_distance"] > 10
    counted = counts(made, "scores")["evaluation"]
    assert counted == {"evaluation.entered": 2, "evaluation.kept": 1, "evaluation.dropped.not_an_image": 1}


def test_vectors_become_a_matrix(judged: Plan) -> None:
    bucket = next(unit.name for unit in judged.buckets if rows_of(judged, unit.name))
    table = heads.read_vectors(Workspace(judged.root, "x", Unit(name=bucket)), bucket)
    assert heads.matrix(table["clip"]).tolist() == table["clip"].to_pylist()


def rows_of(made: Plan, bucket: str) -> int:
    return int(heads.read_vectors(Workspace(made.root, "x", Unit(name=bucket)), bucket).num_rows)
