"""What a build would do is said before it starts: exact about what is done again and why, and it changes nothing."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_crawls import article, plan, run, run_until, write

from filters.near_text import NearTextRules
from filters.optout import OptOutRules
from mmc4_builder.cli import main
from mmc4_builder.fetch_config import FetchConfig
from pipelines import changes, dry_run, earlier
from pipelines.build import BuildError, claim, describe, run_stage
from pipelines.config import Build, DocumentsConfig, ImagesConfig, ShardsConfig, mmc4
from pipelines.launch import Engine
from pipelines.plan import STAGES, Crawl, Plan

LIVE = mmc4(ImagesConfig(fetch=FetchConfig(contact="https://example.org/crawl")))


def planned(build: Build, *warcs: tuple[str, ...]) -> Plan:
    crawl = Crawl(name="small", root="/crawl", warcs=warcs or (("0.warc.gz", "1000"), ("1.warc.gz", "1000")))
    return Plan(build=build, crawl=crawl, root="/out")


def fetching(**values: Any) -> Build:
    fetch = FetchConfig(**{"contact": "https://example.org/crawl", **values})
    return replace(LIVE, images=replace(LIVE.images, fetch=fetch))


def scoring(**values: Any) -> Build:
    return replace(LIVE, scores=replace(LIVE.scores, **values))


TABLE: list[tuple[Build, dict[str, str]]] = [
    (LIVE, {}),
    (replace(LIVE, name="other"), {}),
    (fetching(contact="mailto:me@x.example", concurrency=9), {}),
    (replace(LIVE, images=replace(LIVE.images, optout_keys=("x.example",), optout=OptOutRules(agents=()))), {}),
    (
        replace(LIVE, documents=DocumentsConfig(min_english=0.5)),
        {"documents": "documents.min_english: 0.99 -> 0.5", **dict.fromkeys(STAGES[1:], "documents is done again")},
    ),
    (
        fetching(max_bytes=9),
        {
            "images": "images.fetch.max_bytes: 10485760 -> 9",
            **dict.fromkeys(STAGES[2:], "images is done again"),
        },
    ),
    (
        replace(LIVE, images=ImagesConfig(source="archive")),
        {"images": "images.source: 'live' -> 'archive'", **dict.fromkeys(STAGES[2:], "images is done again")},
    ),
    (
        scoring(clip="tiny"),
        {"scores": "scores.clip: 'ViT-L-14:openai' -> 'tiny'", **dict.fromkeys(STAGES[3:], "scores is done again")},
    ),
    (scoring(faces="f.json"), {"scores": "scores.faces: None -> 'f.json'", "shards": "scores is done again"}),
    (scoring(face_detector="released"), {"scores": "scores.face_detector: None -> 'released'"}),
    (scoring(evaluation="coco"), {"scores": "scores.evaluation: None -> 'coco'"}),
    (
        replace(LIVE, documents=DocumentsConfig(near_text=NearTextRules())),
        {"interleave": "documents.near_text: None -> ", "shards": "interleave is done again"},
    ),
    (
        replace(LIVE, interleave=replace(LIVE.interleave, min_similarity=0.2)),
        {"interleave": "interleave.min_similarity: 0.15 -> 0.2", "shards": "interleave is done again"},
    ),
    (replace(LIVE, shards=ShardsConfig(documents=7)), {"shards": "shards.documents: 1000 -> 7"}),
]


def dates(made: Plan) -> dict[str, str]:
    """Fingerprints by step."""
    found = {work.step: work.fingerprint for name in STAGES[:-1] for work in made.stage(name).work}
    return {**found, **made.score_fingerprints(), "shards": made.fingerprints()["shards"]}


@pytest.mark.parametrize(("build", "told"), TABLE)
def test_a_setting_concerns_exactly_the_steps_that_depend_on_it(build: Build, told: dict[str, str]) -> None:
    """Reasons come from comparing settings, what is done again from fingerprints: they must agree on every step."""
    before, after = planned(LIVE), planned(build)
    old, new = dates(before), dates(after)
    redone = {step for step in old.keys() & new.keys() if old[step] != new[step]}
    was, now = describe(before), describe(after)
    assert {step for step in old.keys() & new.keys() if changes.why_step(step, was, now)} == redone
    assert bool(earlier.changed(was, now)) == bool(told)
    for stage, reason in told.items():
        assert any(reason in said for said in changes.why_stage(stage, was, now))


def test_every_step_has_its_settings() -> None:
    made = planned(
        replace(
            LIVE,
            documents=DocumentsConfig(c4=("c4.json.gz",), near_text=NearTextRules()),
            scores=replace(LIVE.scores, face_detector="released", evaluation="coco"),
        )
    )
    for name in STAGES[:-1]:
        assert {work.step for work in made.stage(name).work} <= changes.READS[name].keys()


@pytest.mark.parametrize(
    ("warcs", "said"),
    [
        ((("0.warc.gz", "1000"),), "2 -> 1 WARC files"),
        (
            (("0.warc.gz", "1000"), ("1.warc.gz", "7")),
            "1 of 2 WARC files are others, first 1.warc.gz 1000 -> 1.warc.gz 7",
        ),
    ],
)
def test_other_files_are_a_reason(warcs: tuple[tuple[str, ...], ...], said: str) -> None:
    was, now = describe(planned(LIVE)), describe(planned(LIVE, *warcs))
    assert earlier.changed(was, now) == list(STAGES)
    assert changes.why_step("judge_urls", was, now) == [said]
    assert changes.why_step("interleave", was, now) == ["documents is done again"]


def test_reasons_of_another_version() -> None:
    now = describe(planned(LIVE))
    was = {**now, "mmc4_build": "0.0.1", "fingerprints": dict.fromkeys(STAGES, "other")}
    assert changes.why_step("extract", was, now) == ["made by mmc4-build 0.0.1"]
    fewer = {**now["config"], "shards": {"documents": 1000}}
    assert changes.told({**now, "config": fewer}, now) == ["shards.format: (no such setting) -> 'mmc4'"]


def test_long_values_are_told_in_few_words() -> None:
    was, now = (describe(planned(replace(LIVE, documents=DocumentsConfig(bad_words=words)))) for words in
                (tuple(map(str, range(400))), tuple(map(str, range(401)))))  # fmt: skip
    (said,) = changes.told(was, now)
    assert said.startswith("documents.bad_words: 400 entries (#") and len(said) < 100


# A build at rest.


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("dry")
    made = plan(folder / "out", write(folder / "crawl", [article("mill", "http://x.example/a.jpg")]))
    claim(made, False)
    run_until(made, "images")
    return made


@pytest.fixture
def halfway(untouched: Plan, tmp_path: Path) -> Plan:
    """Documents and images are done; a copy to damage."""
    return replace(untouched, root=str(shutil.copytree(untouched.root, tmp_path / "out")))


def tree(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(root.rglob("*"))}


def test_the_plan_of_a_build_that_is_half_done(halfway: Plan) -> None:
    before = tree(Path(halfway.root))
    told = dry_run.report(halfway)
    assert tree(Path(halfway.root)) == before
    lines = told.splitlines()
    assert lines[0].startswith("documents: all ") and lines[1].startswith("images: all ")
    assert lines[2].startswith("scores: 0 of ")
    assert "  embed              0 done       4 to do  not done yet" in lines
    assert "shards: to do, how many tars there are follows from interleave" in lines
    assert lines[-1] == "dry run: nothing was written or started"


def test_damage_is_told(halfway: Plan) -> None:
    root = Path(halfway.root)
    (root / "documents/pages/00000.parquet").unlink()
    (root / "commits/judge_urls/00001.json").write_text("[]")
    (root / "commits/judge_urls/00002.json").unlink()
    told = dry_run.report(halfway, ("documents",))
    assert "extract            0 done       1 to do  files missing or cut" in told
    assert "judge_urls         2 done       2 to do  1 not done yet; 1 the record cannot be read" in told


def reconfigured(made: Plan, **build: Any) -> Plan:
    return replace(made, build=replace(made.build, **build))


def test_a_changed_setting_is_named_and_what_depends_on_it(halfway: Plan) -> None:
    other = reconfigured(halfway, images=ImagesConfig(source="archive", frequent_from=3))
    told = dry_run.report(other)
    assert "documents: all " in told
    assert "mention            0 done       1 to do  1 again: images.frequent_from: 5 -> 3" in told
    assert "would be refused" in told and "--reconfigure" in told
    assert "would be refused" not in dry_run.report(other, reconfigure=True)


def test_a_run_says_what_it_redoes_and_one_that_was_stopped_still_knows_why(halfway: Plan) -> None:
    """First another setting for images, then, before anything ran, another one for documents."""
    one = reconfigured(halfway, images=ImagesConfig(source="archive", frequent_from=3))
    with pytest.raises(BuildError, match="frequent_from: 5 -> 3"):
        claim(one, False)
    assert claim(one, True) == ["images: again, images.frequent_from: 5 -> 3"]
    assert claim(one, False) == ["images: again, images.frequent_from: 5 -> 3"]  # killed, and run again
    two = reconfigured(one, documents=DocumentsConfig(min_english=0.5))
    assert claim(two, True) == [
        "documents: again, documents.min_english: 0.99 -> 0.5",
        "images: again, images.frequent_from: 5 -> 3; documents is done again",
    ]
    told = dry_run.report(two)
    assert "1 again: images.frequent_from: 5 -> 3; documents is done again" in told
    assert run_stage(two, two.stage("documents"), Engine(workers=1), io.StringIO())
    assert [entry["stages"] for entry in described(two)["earlier"]] == [["images"]]
    run(two.stage("images").transform)
    run_stage(two, two.stage("images"), Engine(workers=1), io.StringIO())
    assert "earlier" not in described(two)
    assert claim(two, False) == []


def test_back_to_what_was_is_nothing_to_do(halfway: Plan) -> None:
    claim(reconfigured(halfway, images=ImagesConfig(source="archive", frequent_from=3)), True)
    assert claim(halfway, True) == []
    assert "images: all " in dry_run.report(halfway)


def described(made: Plan) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(made.root, "build.json").read_text())
    return found


def test_a_missing_stage_is_told(halfway: Plan) -> None:
    assert "run --stages scores first" in dry_run.report(halfway, ("shards",))


@pytest.mark.parametrize("there", [False, True])
def test_the_command_line_writes_nothing(
    there: bool, halfway: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the sample crawl too, which a run would write beside its build; and of a build that lies there."""
    output = Path(halfway.root) if there else tmp_path / "new"
    before = tree(tmp_path)
    crawl = [] if there else ["--crawl", "sample"]
    assert main([*crawl, "--output", str(output), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert ("documents: all " if there else "documents: 0 of 28 units done") in told
    assert tree(tmp_path) == before
