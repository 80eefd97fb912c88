"""What a build still has to do: work counts as done only under the very configuration and inputs that it came from."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from small_crawls import article, counts, picture, plan, rows, run, run_until, write
from without_engine import built

from filters.near_text import NearTextRules
from filters.optout import OptOutRules
from filters.text import TextRules
from mmc4_builder import commits
from mmc4_builder.fetch_config import FetchConfig
from mmc4_builder.workspace import Unit
from pipelines.config import Build, DocumentsConfig, ImagesConfig, ScoresConfig, ShardsConfig, mmc4
from pipelines.plan import STAGES, Crawl, Plan, Work, remove_stale
from pipelines.units import unit_fingerprint

CONTACT = "https://example.org/crawl"


def planned(build: Build, files: int = 2) -> Plan:
    warcs = tuple((f"{number}.warc.gz", "1000") for number in range(files))
    return Plan(build=build, crawl=Crawl(name="small", root="/crawl", warcs=warcs), root="/out")


LIVE = mmc4(ImagesConfig(fetch=FetchConfig(contact=CONTACT)))


def changed(before: Plan, after: Plan) -> tuple[str, ...]:
    """Stages whose work is to be done again."""
    old, new = before.fingerprints(), after.fingerprints()
    return tuple(stage for stage in STAGES if old[stage] != new[stage])


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (lambda b: b, None),
        (lambda b: replace(b, name="other"), None),
        (
            lambda b: replace(b, images=replace(b.images, fetch=FetchConfig(contact="mailto:me@x.example"))),
            None,
        ),
        (lambda b: replace(b, documents=DocumentsConfig(min_english=0.5)), "documents"),
        (lambda b: replace(b, documents=DocumentsConfig(bad_words=("x",))), "documents"),
        (lambda b: replace(b, documents=DocumentsConfig(text=TextRules(min_sentences=1))), "documents"),
        (lambda b: replace(b, documents=DocumentsConfig(c4=("c4.json.gz",))), "documents"),
        (lambda b: replace(b, images=replace(b.images, source="both")), "images"),
        (
            lambda b: replace(b, images=replace(b.images, fetch=FetchConfig(contact=CONTACT, max_bytes=9))),
            "images",
        ),
        (lambda b: replace(b, images=replace(b.images, fetch=FetchConfig(contact=CONTACT, concurrency=9))), None),
        (lambda b: replace(b, documents=DocumentsConfig(crawl_robots=True)), "documents"),
        (lambda b: replace(b, documents=DocumentsConfig(near_text=NearTextRules())), "interleave"),
        (lambda b: replace(b, images=replace(b.images, optout_keys=("example.org",))), None),
        (lambda b: replace(b, images=replace(b.images, optout=OptOutRules(agents=()))), None),
        (lambda b: replace(b, scores=ScoresConfig(clip="tiny")), "scores"),
        (lambda b: replace(b, scores=replace(b.scores, faces="tiny")), "scores"),
        (lambda b: replace(b, interleave=replace(b.interleave, optout_keys=("example.org",))), "interleave"),
        (lambda b: replace(b, interleave=replace(b.interleave, drop_faces=True)), "interleave"),
        (lambda b: replace(b, interleave=replace(b.interleave, min_similarity=0.2)), "interleave"),
        (lambda b: replace(b, interleave=replace(b.interleave, core=True)), "interleave"),
        (lambda b: replace(b, shards=ShardsConfig(documents=7)), "shards"),
        (lambda b: replace(b, shards=ShardsConfig(format="openflamingo")), "shards"),
    ],
)
def test_a_change_redoes_its_stage_and_those_behind_it(change: Callable[[Build], Build], first: str | None) -> None:
    expected = STAGES[STAGES.index(first) :] if first else ()
    assert changed(planned(LIVE), planned(change(LIVE))) == expected


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        ({"clip": "tiny"}, {"embed", "scores", "evaluation", "heads"}),
        ({"clip_sha256": "ab"}, {"embed", "scores", "evaluation", "heads"}),
        ({"nsfw": None}, {"heads"}),
        ({"faces": "faces.json"}, {"heads"}),
        ({"head_sha256s": ("ab",)}, {"heads"}),
        ({"face_detector": "released"}, {"faces", "heads"}),
        ({"detector_sha256": "ab"}, {"faces", "heads"}),
        ({"evaluation": "coco"}, {"evaluation", "heads"}),
        ({"evaluation_sha256": "ab"}, {"evaluation", "heads"}),
    ],
)
def test_small_models_do_not_redo_large_ones(change: dict[str, Any], redone: set[str]) -> None:
    before = planned(LIVE)
    after = planned(replace(LIVE, scores=replace(LIVE.scores, **change)))
    old, new = before.score_fingerprints(), after.score_fingerprints()
    assert {step for step in old if old[step] != new[step]} == redone


def test_fingerprints_do_not_depend_on_the_process() -> None:
    """No hash() and no order of a set in them: they are compared with those of another day."""
    assert planned(LIVE).fingerprints() == planned(LIVE).fingerprints()
    script = "from test_pipelines_plan import LIVE, planned; print(planned(LIVE).fingerprints())"
    folder = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{folder.parent}", "PYTHONHASHSEED": "7"}
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(planned(LIVE).fingerprints())


@pytest.mark.parametrize(
    ("files", "buckets"), [(1, 4), (2, 4), (3, 8), (4, 8), (800, 2048), (2048, 4096), (90_000, 4096)]
)
def test_buckets(files: int, buckets: int) -> None:
    assert len(planned(LIVE, files).buckets) == buckets


def extraction(made: Plan) -> Work:
    return made.stage("documents").work[0]


def test_another_warc_file_does_not_redo_the_extraction_of_the_others() -> None:
    """As long as the number of buckets stays; everything behind extraction sees the whole corpus."""
    one, two = planned(LIVE, 1), planned(LIVE, 2)
    old, new = extraction(one), extraction(two)
    assert unit_fingerprint(old.fingerprint, old.units[0]) == unit_fingerprint(new.fingerprint, new.units[0])
    behind = [work.fingerprint for made in (one, two) for work in made.stage("documents").work[1:]]
    assert len(set(behind)) == 2
    assert changed(one, two) == STAGES[1:]


@pytest.mark.parametrize("other", [("0.warc.gz", "1001"), ("00.warc.gz", "1000")])
def test_a_file_that_changed_is_another_file(other: tuple[str, str]) -> None:
    before, now = planned(LIVE, 1), planned(LIVE, 1)
    now = replace(now, crawl=replace(now.crawl, warcs=(other,)))
    old, new = extraction(before), extraction(now)
    assert unit_fingerprint(old.fingerprint, old.units[0]) != unit_fingerprint(new.fingerprint, new.units[0])
    assert changed(before, now) == STAGES[1:]


def test_the_root_of_the_crawl_is_no_part_of_it() -> None:
    """A crawl that was copied elsewhere is the same crawl."""
    here = planned(LIVE)
    assert changed(here, replace(here, crawl=replace(here.crawl, root="s3://elsewhere"))) == ()


# Commits.


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("plan")
    made = plan(folder / "out", write(folder / "crawl", [article("mill", "http://x.example/a.jpg")]))
    run_until(made, "documents")
    return made


@pytest.fixture
def documented(untouched: Plan, tmp_path: Path) -> Plan:
    """One page, its documents made; a copy to damage."""
    root, crawl = (shutil.copytree(place, tmp_path / name) for place, name in
                   ((untouched.root, "out"), (untouched.crawl.root, "crawl")))  # fmt: skip
    return replace(untouched, root=str(root), crawl=replace(untouched.crawl, root=str(crawl)))


def done(made: Plan, stage: str = "documents") -> dict[str, int]:
    return {work.step: len(work.committed(made.root)) for work in made.stage(stage).work}


ALL = {"extract": 1, "judge_urls": 4, "claim_lines": 1, "judge_lines": 4, "documents": 1}


def test_work_is_done_when_every_unit_has_its_commit(documented: Plan) -> None:
    assert done(documented) == ALL
    assert documented.stage("documents").total == sum(ALL.values())


def damage_nothing(root: Path) -> None:
    """The commit stands."""


def delete_an_output(root: Path) -> None:
    (root / "documents/pages/00000.parquet").unlink()


def cut_an_output(root: Path) -> None:
    path = root / "documents/pages/00000.parquet"
    path.write_bytes(path.read_bytes()[:-1])


def cut_the_record(root: Path) -> None:
    path = root / "commits/extract/00000.json"
    path.write_bytes(path.read_bytes()[:-20])


def replace_the_record(root: Path) -> None:
    (root / "commits/extract/00000.json").write_text("[]")


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (damage_nothing, 1),
        (delete_an_output, 0),
        (cut_an_output, 0),
        (cut_the_record, 0),
        (replace_the_record, 0),
    ],
)
def test_a_commit_holds_while_its_outputs_are_whole(
    damage: Callable[[Path], None], left: int, documented: Plan
) -> None:
    damage(Path(documented.root))
    assert done(documented) == ALL | {"extract": left}


@pytest.mark.parametrize("damage", [delete_an_output, cut_the_record])
def test_what_is_missing_is_done_again_and_nothing_else(damage: Callable[[Path], None], documented: Plan) -> None:
    before = (
        rows(documented.root, "documents"),
        (Path(documented.root) / "commits/extract/00000.json").read_bytes(),
    )
    damage(Path(documented.root))
    counters = run(documented.stage("documents").transform)
    assert set(counters) == {"extract"}
    assert counters == {"extract": counts(documented, "documents")["extract"]}
    after = (
        rows(documented.root, "documents"),
        (Path(documented.root) / "commits/extract/00000.json").read_bytes(),
    )
    assert after == before


def test_commits_of_another_configuration_do_not_count(documented: Plan) -> None:
    build = replace(documented.build, documents=DocumentsConfig(min_english=0.5))
    assert done(replace(documented, build=build)) == dict.fromkeys(ALL, 0)


def test_a_grown_crawl_starts_from_what_is_extracted(documented: Plan, tmp_path: Path) -> None:
    """The second file is extracted; the first one is not read again."""
    first = Path(documented.crawl.root) / "0.warc.gz"
    mark = first.stat().st_size
    second = write(tmp_path / "more", [article("well", "http://x.example/b.jpg")])
    path = Path(second.root) / "0.warc.gz"
    path.rename(first.with_name("1.warc.gz"))
    warcs = (("0.warc.gz", str(mark)), ("1.warc.gz", str(first.with_name("1.warc.gz").stat().st_size)))
    grown = replace(documented, crawl=replace(documented.crawl, warcs=warcs))
    assert done(grown) == dict.fromkeys(ALL, 0) | {"extract": 1}
    first.unlink()  # it would be noticed if it were read
    run(grown.stage("documents").transform)
    assert [row["url"] for row in rows(grown.root, "documents")] == [
        "http://mill.example/",
        "http://well.example/",
    ]


def test_stale_records_are_removed_and_valid_ones_stay(documented: Plan) -> None:
    root = documented.root
    work = extraction(documented)
    (valid,) = work.committed(root)
    commits.write(root, replace(valid, unit="00001", fingerprint="of another configuration"))
    assert remove_stale(root, work, [valid]) == 1
    assert commits.done(root, "extract") == ["00000"]
    assert remove_stale(root, work, [valid]) == 0
    assert remove_stale(root, work, []) == 1
    assert commits.done(root, "extract") == []
    assert remove_stale(root, Work("never ran", "f", ()), []) == 0


def test_a_stage_names_its_steps_and_units() -> None:
    two = planned(LIVE)
    steps: dict[str, list[tuple[str, int]]] = {
        name: [(work.step, len(work.units)) for work in two.stage(name).work]
        for name in ("documents", "images", "scores", "interleave")
    }
    assert steps == {
        "documents": [
            ("extract", 2),
            ("judge_urls", 4),
            ("claim_lines", 2),
            ("judge_lines", 4),
            ("documents", 2),
        ],
        "images": [
            ("mention", 2),
            ("redirects", 1),
            ("aliases", 4),
            ("images", 4),
            ("occurrences", 4),
            ("frequent", 1),
        ],
        "scores": [("embed", 4), ("scores", 2), ("heads", 4)],
        "interleave": [("interleave", 2)],
    }
    c4 = planned(replace(LIVE, documents=DocumentsConfig(c4=("a.json.gz", "b.json.gz", "c.json.gz"))))
    assert [(work.step, len(work.units)) for work in c4.stage("documents").work] == [
        ("extract", 2),
        ("read_c4", 3),
        ("join_c4", 4),
        ("documents", 2),
    ]


@pytest.mark.parametrize("value", [object(), {1: object()}])
def test_what_has_no_fixed_form_is_no_part_of_a_fingerprint(value: Any) -> None:
    with pytest.raises(TypeError, match="fingerprint"):
        commits.fingerprint(value)


def test_units_of_other_inputs_have_other_fingerprints() -> None:
    seen = {
        unit_fingerprint(step, Unit(name=name, inputs=inputs))
        for step in ("f", "g")
        for name in ("00000", "00001")
        for inputs in ((), ("a",), ("a", "b"), ("ab",))
    }
    assert len(seen) == 16


def test_many_files_share_units_and_the_corpus_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [
        [
            article(f"topic{n}", f"http://host{n % 2}.example/p.jpg"),
            article("everywhere"),
            picture(f"http://host{n}.example/p.jpg", n),
        ]
        for n in range(5)
    ]
    crawl = write(tmp_path / "crawl", *files)
    alone = built(plan(tmp_path / "alone", crawl))
    assert len(alone.files) == 5
    monkeypatch.setattr("pipelines.plan.MOST_UNITS", 2)
    together = built(plan(tmp_path / "together", crawl))
    assert len(together.files) == 2
    assert together.files[1].inputs == tuple(chain.from_iterable(crawl.warcs[3:]))
    for what in ("documents", "images"):
        found, expected = ({row["url"]: row for row in rows(made.root, what)} for made in (together, alone))
        assert found.keys() == expected.keys() and len(found) > 1
        assert all(found[url]["warc"] == row["warc"] for url, row in expected.items() if "warc" in row)


@pytest.mark.parametrize(("files", "units"), [(0, 0), (1, 1), (24_000, 24_000), (24_001, 12_001), (90_000, 22_500)])
def test_a_whole_crawl_has_units_of_several_files(files: int, units: int) -> None:
    assert len(planned(LIVE, files).files) == units
