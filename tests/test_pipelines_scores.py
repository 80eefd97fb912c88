"""Stage 3: vectors of pictures and sentences, compared as if they had been embedded one by one."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_crawls import (
    TIMESTAMP,
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
)

from mmc4_builder import clip, commits
from mmc4_builder.images import normalise
from mmc4_builder.match import similarity_matrix
from mmc4_builder.warc import Response
from mmc4_builder.workspace import Unit, Workspace, read_rows
from pipelines.plan import Plan
from pipelines.schemas import DOCUMENTS, FACTS, OPINIONS
from pipelines.scores import compare

SHARED, OWN, TWIN, DEAD, ABSENT = (f"http://x.example/{n}.jpg" for n in ("shared", "own", "twin", "dead", "absent"))
FAR = "http://far.example/far.jpg"


@pytest.fixture(scope="module")
def model() -> clip.Clip:
    return clip.load("tiny")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Two files that name pictures in common, one that is dead, and one that the crawl lacks."""
    folder = tmp_path_factory.mktemp("scores")
    logo = "http://x.example/logo.jpg"
    lines = prose("mill", 5)
    body = img(SHARED) + paragraphs(lines[:3]) + img(OWN, logo, SHARED, FAR) + paragraphs(lines[3:]) + img(TWIN, DEAD)
    broken = Response(url=DEAD, timestamp=TIMESTAMP, payload=b"?", headers=(("Content-Type", "image/jpeg"),))
    first = [page("http://mill.example/", body), article("hollow", DEAD, ABSENT), article("bare", logo)]
    second = [
        article("well", SHARED),
        picture(SHARED, 1),
        picture(OWN, 2),
        picture(TWIN, 2),
        picture(FAR, 3),
        broken,
    ]
    made = plan(folder / "out", write(folder / "crawl", first, second))
    run_until(made, "images")
    counters = run(made.stage("scores").transform)
    assert agrees(counters, counts(made, "scores"))
    return made


def scored(made: Plan) -> dict[str, list[dict[str, Any]]]:
    """Scored pictures by the URL of their document."""
    documents = [row["url"] for row in rows(made.root, "documents")]
    found = {}
    for url, row in zip(documents, rows(made.root, "scores"), strict=True):
        found[url] = row["images"]
    return found


def opinions(made: Plan, unit: str) -> dict[str, dict[str, Any]]:
    """What documents file `unit` is told of its pictures, by URL."""
    sent = commits.load_all(made.root, "heads", [bucket.name for bucket in made.buckets])
    pieces = tuple(piece for commit in sent for piece in commit.pieces.get(unit, ()))
    workspace = Workspace(made.root, "elsewhere", Unit(name=unit, pieces=pieces))
    return {row["url"]: row for row in workspace.received("opinions", OPINIONS).to_pylist()}


def test_each_picture_is_embedded_once(built: Plan, model: clip.Clip) -> None:
    vectors = rows(built.root, "scores/images")
    stored = {normalise(jpeg(seed)).sha256: jpeg(seed) for seed in (1, 2, 3)}
    assert sorted(row["sha256"] for row in vectors) == sorted(stored)
    assert counts(built, "scores")["embed"] == {"pictures": 3}
    for row in vectors:
        (alone,) = model.embed_images([stored[row["sha256"]]])
        np.testing.assert_array_equal(np.asarray(row["clip"], np.float32), alone)


@pytest.mark.parametrize(("url", "seed"), [(SHARED, 1), (OWN, 2), (TWIN, 2), (FAR, 3)])
def test_similarities_are_those_of_picture_and_sentence(url: str, seed: int, built: Plan, model: clip.Clip) -> None:
    (image,) = [image for image in scored(built)["http://mill.example/"] if image["url"] == url]
    picture = model.embed_images([jpeg(seed)])
    for sentence, similarity in zip(prose("mill", 5), image["similarity"], strict=True):
        assert similarity == similarity_matrix(picture, model.embed_texts([sentence]))[0, 0]


def test_pictures_come_in_dom_order_each_once(built: Plan) -> None:
    """The banned one was never asked for; the one shown twice stands where it stood first."""
    images = scored(built)["http://mill.example/"]
    assert [(image["url"], image["position"]) for image in images] == [
        (SHARED, 0),
        (OWN, 3),
        (FAR, 3),
        (TWIN, 5),
        (DEAD, 5),
    ]


def test_facts_reach_every_file_that_names_a_picture(built: Plan) -> None:
    found = scored(built)
    (there,) = found["http://well.example/"]
    here = found["http://mill.example/"][0]
    assert {name: there[name] for name in FACTS} == {name: here[name] for name in FACTS}
    assert opinions(built, "00000")[SHARED]["occurrences"] == opinions(built, "00001")[SHARED]["occurrences"] == 2
    assert len(there["similarity"]) == 4


def test_copies_are_counted_together(built: Plan) -> None:
    """The same picture under two URLs, named by one document."""
    by_url = {image["url"]: image for image in scored(built)["http://mill.example/"]}
    assert by_url[OWN]["sha256"] == by_url[TWIN]["sha256"]
    told = opinions(built, "00000")
    assert told[OWN]["occurrences"] == told[TWIN]["occurrences"] == 2


def test_pictures_that_are_not_stored_have_a_reason_and_no_similarity(built: Plan) -> None:
    found = scored(built)
    dead, absent = found["http://hollow.example/"]
    assert (dead["reason"], absent["reason"]) == ("not_an_image", "missing")
    assert dead["similarity"] is absent["similarity"] is None
    assert found["http://bare.example/"] == []


class Counting:
    """The model, noting how many sentences it is given."""

    def __init__(self, model: clip.Clip) -> None:
        self.model, self.identity, self.sentences = model, model.identity, 0

    def embed_texts(self, texts: list[str]) -> Any:
        self.sentences += len(texts)
        return self.model.embed_texts(texts)


@pytest.mark.parametrize(("number", "sentences"), [(0, 5), (1, 4)])
def test_only_documents_with_a_stored_picture_are_embedded(
    number: int, sentences: int, built: Plan, model: clip.Clip, tmp_path: Path
) -> None:
    """In the first file, one of three documents has a stored picture; those of the others cost nothing."""
    counting = Counting(model)
    work = built.stage("scores").work[0]
    sent = work.committed(built.root)
    unit = built.files[number]
    pieces = tuple(piece for commit in sent for piece in commit.pieces.get(unit.name, ()))
    workspace = Workspace(built.root, "elsewhere", Unit(name=unit.name, pieces=pieces))
    before = Path(built.root, f"scores/{unit.name}.parquet").read_bytes()
    compare(workspace.unit, workspace, counting)  # type: ignore[arg-type]
    assert counting.sentences == sentences
    assert Path(built.root, f"scores/{unit.name}.parquet").read_bytes() == before


def test_without_any_picture(tmp_path: Path) -> None:
    made = plan(tmp_path / "out", write(tmp_path / "crawl", [article("mill", ABSENT)], []))
    run_until(made, "scores")
    assert_adds_up(counts(made, "images")["images"])
    assert [image["reason"] for row in rows(made.root, "scores") for image in row["images"]] == ["missing"]
    assert rows(made.root, "scores/images") == []


def test_documents_without_sentences_have_empty_similarities(built: Plan, model: clip.Clip, tmp_path: Path) -> None:
    """Released C4 may hold an empty text."""
    root = shutil.copytree(built.root, tmp_path / "out")
    sent = built.stage("scores").work[0].committed(built.root)
    pieces = tuple(piece for commit in sent for piece in commit.pieces.get("00000", ()))
    workspace = Workspace(str(root), "scores", Unit(name="00000", pieces=pieces))
    with workspace.parquet("documents/00000.parquet", DOCUMENTS) as documents:
        documents.append({"sentences": [], "images": [{"url": SHARED, "position": 0, "alt": ""}]})
    compare(workspace.unit, workspace, model)
    (row,) = read_rows(str(root / "scores/00000.parquet"))
    assert [image["similarity"] for image in row["images"]] == [[]]
