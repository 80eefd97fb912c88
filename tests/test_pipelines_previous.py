"""Crawl after crawl: a build on top of earlier ones holds what is new, and both together are one build of both."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from apache_beam.io.filesystem import FileMetadata, MatchResult
from apache_beam.io.localfilesystem import LocalFileSystem
from builds import digests
from small_crawls import (
    article,
    assert_adds_up,
    counts,
    img,
    page,
    paragraphs,
    picture,
    plan,
    prose,
    rows,
    run_until,
    write,
)
from without_engine import built, left_for

from filters.near_text import NearTextRules
from filters.text import TextRules, url_key
from mmc4_builder import commits, key_lists, tombstones
from mmc4_builder.cli import main
from mmc4_builder.images import ImageRules
from mmc4_builder.urls import normalize_url
from mmc4_builder.warc import Response
from mmc4_builder.workspace import Workspace, read_rows
from pipelines import dry_run, previous
from pipelines.build import BuildError, claim, describe
from pipelines.changes import why_step
from pipelines.config import Build, DocumentsConfig
from pipelines.plan import Plan
from pipelines.previous import PreviousError
from pipelines.previous_documents import known_lines, known_pages
from pipelines.previous_images import meeting
from pipelines.schemas import LINE_CLAIMS, NEAR_LOSERS, PREVIOUS_LINES, PREVIOUS_URLS, TOTALS, URL_CLAIMS
from pipelines.summary import add_up

pytestmark = pytest.mark.timeout(600)  # many small builds, on a machine that may have other things to do

LATER = "2024-06-01T12:00:00Z"
SHARED = "Everybody who comes along this coast has heard of the old light and its bell."
FRENCH = [f"Le gardien du phare a écrit la ligne {i} sur un long hiver et une mer très calme." for i in range(4)]


def topics(count: int) -> list[str]:
    """Topics whose pages have ever larger hashes: of two, C4 lets the first keep a line that both have."""
    return sorted((f"topic{n}" for n in range(count)), key=lambda t: url_key(normalize_url(f"http://{t}.example/")))


LEAST, FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH, MOST = topics(8)


def sharing(topic: str, *images: str, lines: Sequence[str] | None = None) -> Response:
    """A page of its own words and one line that others have too."""
    return page(f"http://{topic}.example/", paragraphs([*(lines or prose(topic)), SHARED]) + img(*images))


def url(name: str, host: str = "pictures") -> str:
    return f"http://{host}.example/{name}.jpg"


STORY = [f"In the year {n} the keeper counted {n * 7} ships that came past the light." for n in range(1800, 1820)]
NEARLY = [  # the same words, and no line is the same
    page(f"http://{MOST}.example/", paragraphs(STORY) + img(url("a"))),
    page(f"http://{LEAST}.example/", paragraphs(line.replace("year ", "year, ") for line in STORY) + img(url("a"))),
]
A: list[list[Response]] = [
    [sharing(FIRST, url("a"), url("b")), article(SECOND, url("a")), picture(url("a"), 1)],
    [article(THIRD, url("b"), url("gone")), picture(url("b"), 2)],
    [article(FOURTH, url("c", "other")), NEARLY[0], picture(url("c", "other"), 3)],
]
B: list[list[Response]] = [
    [sharing(FIFTH, url("a"), url("d")), NEARLY[1], picture(url("d"), 4)],
    [article(SECOND, url("a"), url("d")), article(SIXTH, url("c", "other"), url("e")), picture(url("e"), 5)],
]


def after(made: Plan, *earlier: Plan) -> Plan:
    """The same plan on top of earlier builds."""
    found, _ = previous.find([one.root for one in earlier], made.root, made.build)
    return replace(made, build=replace(made.build, previous=found))


def both(folder: Path, first: Sequence[Sequence[Response]], second: Sequence[Sequence[Response]]) -> list[Plan]:
    """A, B on top of A, and one build of both."""
    config = DocumentsConfig(near_text=NearTextRules())
    a = built(plan(folder / "a", write(folder / "crawl-a", *first), documents=config))
    b = built(after(plan(folder / "b", write(folder / "crawl-b", *second), documents=config), a))
    return [a, b, built(plan(folder / "union", write(folder / "crawl", *first, *second), documents=config))]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Plan]:
    return both(tmp_path_factory.mktemp("three"), A, B)


def documents(made: Plan) -> dict[str, Any]:
    return {row["url"]: (row["sentences"], row["images"]) for row in rows(made.root, "documents")}


def pictures(made: Plan) -> dict[str, tuple[Any, ...]]:
    facts = ("reason", "sha256", "phash", "width", "original_sha256", "origin", "final_url", "fetched", "statements")
    return {row["url"]: tuple(map(str, (row[name] for name in facts))) for row in rows(made.root, "images")}


def stored(made: Plan) -> set[str]:
    return {row["sha256"] for row in rows(made.root, "images") if row["sha256"]}


def dropped(made: Plan, stage: str, step: str, what: str) -> dict[str, int]:
    """What the step counts as dropped, by reason."""
    prefix = f"{what}.dropped."
    return {n.removeprefix(prefix): c for n, c in counts(made, stage)[step].items() if n.startswith(prefix)}


def shown(made: Plan) -> dict[int, int]:
    """By perceptual hash: how many documents show a picture, as the rule on frequent ones is told."""
    found: dict[int, int] = {}
    for path in Path(made.root, "exchange/totals").iterdir():
        data = path.read_bytes()
        source = pa.BufferReader(data)
        while source.tell() < len(data):
            table = pa.ipc.open_stream(source).read_all()
            assert table.schema == TOTALS
            found |= dict(zip(table["key"].to_pylist(), table["documents"].to_pylist(), strict=True))
    return found


def test_both_builds_together_are_one_build_of_both(three: list[Plan]) -> None:
    a, b, union = three
    assert not documents(a).keys() & documents(b).keys()
    assert documents(union) == documents(a) | documents(b)
    assert stored(union) == stored(a) | stored(b)
    known = pictures(a)
    for address, facts in pictures(b).items():
        assert facts == known.get(address, facts) == pictures(union)[address]


def test_the_later_build_needs_nothing_of_the_earlier_one(three: list[Plan]) -> None:
    """Every picture that its documents show lies in its own tars, byte for byte as in the earlier ones."""
    _, b, union = three
    for row in rows(b.root, "images"):
        if row["sha256"]:
            held = Path(b.root, row["store"]).read_bytes()[row["store_offset"] :][: row["store_length"]]
            assert hashlib.sha256(held).hexdigest() == row["sha256"]
            assert row["sha256"] in stored(union)


def test_reasons_and_sums_are_those_of_one_build(three: list[Plan]) -> None:
    a, b, union = three
    same = {"previous_url": "duplicate_url", "previous_line": "duplicate_elsewhere"}
    found: dict[str, Counter[str]] = {}
    for name, plans in (("apart", (a, b)), ("together", (union,))):
        found[name] = Counter()
        for made in plans:
            for step in ("extract", "documents"):
                counted = counts(made, "documents")[step]
                counted.pop("crawl.bytes", None)  # their records lie in other files
                for reason, count in counted.items():
                    what, _, why = reason.rpartition(".")
                    found[name][f"{what}.{same.get(why, why)}"] += count
    assert found["apart"] == found["together"]
    assert dropped(b, "documents", "documents", "pages") == {"previous_url": 1}
    assert dropped(b, "documents", "documents", "lines") == {"previous_line": 1, "page_dropped": 4}


def test_the_funnel_tells_how_many_pictures_were_known(three: list[Plan]) -> None:
    a, b, union = three
    steps = {step.unit: step for step in add_up(b).steps if step.stage == "images"}
    assert (steps["previous"].entered, steps["previous"].kept, steps["previous"].reasons) == (2, 2, ())
    apart = counts(a, "images")["images"]["urls.kept"] + counts(b, "images")["images"]["urls.kept"]
    assert apart - steps["previous"].kept == counts(union, "images")["images"]["urls.kept"]
    assert "previous" not in {step.unit for step in add_up(a).steps}
    assert_adds_up(counts(b, "images")["images"])


def test_showings_are_counted_over_all_builds(three: list[Plan]) -> None:
    a, b, union = three
    assert {code: shown(union)[code] for code in shown(b)} == shown(b)
    assert any(shown(b)[code] > shown(a)[code] for code in shown(a).keys() & shown(b).keys())


def test_the_engine_does_the_same(three: list[Plan], tmp_path: Path) -> None:
    """Every file is the same to the byte, so the pipelines hand on what these tests do."""
    b = replace(three[1], root=str(tmp_path / "b"))
    run_until(b, "images")
    for folder in ("documents", "images", "exchange"):
        paths = [p.relative_to(tmp_path / "b") for p in sorted((tmp_path / "b" / folder).rglob("*")) if p.is_file()]
        assert paths
        for path in paths:
            assert (tmp_path / "b" / path).read_bytes() == Path(three[1].root, path).read_bytes(), path


class Aside(LocalFileSystem):
    """`aside://<absolute path>`: an object store as far as reading goes."""

    @classmethod
    def scheme(cls) -> str:
        return "aside"

    def open(self, path: str, mime_type: str = "", compression_type: str = "auto") -> Any:
        return super().open(path.removeprefix("aside://"), mime_type, compression_type)

    def exists(self, path: str) -> bool:
        return Path(path.removeprefix("aside://")).exists()

    def match(self, patterns: list[str], limits: Any = None) -> list[MatchResult]:
        (path,) = patterns
        file = Path(path.removeprefix("aside://"))
        found = [FileMetadata(path, file.stat().st_size)] if file.exists() else []
        return [MatchResult(path, found)]


def test_an_earlier_build_may_lie_in_an_object_store(three: list[Plan], tmp_path: Path) -> None:
    """It is the same one wherever it lies: neither fingerprints nor any byte change."""
    there = replace(three[0], root=f"aside://{three[0].root}")
    b = built(after(replace(three[1], root=str(tmp_path / "b")), there))
    assert b.build.previous.builds[0].root == there.root
    assert b.fingerprints() == three[1].fingerprints()
    assert digests(tmp_path / "b", "commits", "documents", "images") == digests(
        Path(three[1].root), "commits", "documents", "images"
    )


# Where A and then B differ from one build of both.


def test_an_earlier_capture_stays_though_a_newer_one_came(tmp_path: Path) -> None:
    old = page(f"http://{FIRST}.example/", paragraphs(prose("barn")) + img(url("a")))
    new = page(f"http://{FIRST}.example/", paragraphs(prose("mill")) + img(url("a")), timestamp=LATER)
    a, b, union = both(tmp_path, [[old, picture(url("a"))]], [[new, article(SECOND, url("a"))]])
    assert "barn" in documents(a)[old.url][0][0]
    assert old.url not in documents(b)
    assert "mill" in documents(union)[old.url][0][0]


def test_a_line_stays_with_the_earlier_page_though_a_later_one_has_the_smaller_hash(tmp_path: Path) -> None:
    a, b, union = both(tmp_path, [[sharing(SECOND, url("a")), picture(url("a"))]], [[sharing(FIRST, url("a"))]])
    one, two = (f"http://{topic}.example/" for topic in (FIRST, SECOND))
    assert SHARED in documents(a)[two][0]
    assert SHARED not in documents(b)[one][0]
    assert SHARED in documents(union)[one][0]
    assert SHARED not in documents(union)[two][0]


def test_of_a_page_that_became_no_document_the_next_crawl_may_make_one(tmp_path: Path) -> None:
    """It was not English, or had no pictures. Its lines are its own, so it does not lose them to itself."""
    a, b, union = both(
        tmp_path,
        [[sharing(FIRST), article(THIRD, url("a")), picture(url("a"))]],
        [[replace(sharing(FIRST, url("a")), timestamp=LATER), sharing(SECOND, url("a"))]],
    )
    assert documents(union) == documents(a) | documents(b)
    assert SHARED in documents(b)[f"http://{FIRST}.example/"][0]
    assert dropped(b, "documents", "documents", "lines") == {"previous_line": 1}


def test_lines_of_pages_that_became_no_documents_count_as_within_a_build(tmp_path: Path) -> None:
    a, b, union = both(
        tmp_path,
        [[sharing(FIRST, url("a"), lines=FRENCH), article(THIRD, url("a")), picture(url("a"))]],
        [[sharing(SECOND, url("a"))]],
    )
    assert f"http://{FIRST}.example/" not in documents(a)
    assert documents(union) == documents(a) | documents(b)


# Chains.


def test_a_third_build_adds_to_both(three: list[Plan], tmp_path: Path) -> None:
    third = [[sharing(SECOND, url("a")), article(FIFTH, url("d")), article("topic99", url("d"), url("a"))]]
    c = built(after(plan(tmp_path / "c", write(tmp_path / "crawl", *third)), *three[:2]))
    assert list(documents(c)) == ["http://topic99.example/"]
    assert dropped(c, "documents", "documents", "pages") == {"previous_url": 2}
    assert counts(c, "images")["images"]["previous.kept"] == 2
    assert stored(c) < stored(three[2])
    (code,) = {row["phash"] for row in rows(c.root, "images") if row["url"] == url("d")}
    assert shown(c)[code] == 1 + shown(three[2])[code]


def test_a_chain_with_a_build_left_out_is_told(three: list[Plan]) -> None:
    a, b, union = three
    _, notes = previous.find([b.root], union.root, union.build)
    assert notes == [
        f"--previous {b.root} adds to {a.root}, which is not named: what only that one has counts as new. "
        f"Name both: --previous {a.root} {b.root}"
    ]
    assert previous.find([a.root, b.root], union.root, union.build)[1] == []


# Text that is nearly the same.


def test_of_documents_that_say_nearly_the_same_the_earlier_one_stays(three: list[Plan]) -> None:
    """Whatever their hashes are; within one build the smallest hash stays, as ever."""
    a, b, union = three
    assert (near_losers(a), near_losers(b)) == (set(), {NEARLY[1].url})
    assert near_losers(union) == {NEARLY[0].url}


def near_losers(made: Plan) -> set[str]:
    found = set()
    for unit in made.files:
        pieces = left_for(
            unit, commits.load_all(made.root, "near_text", [b.name for b in made.buckets]), ("near_losers",)
        )
        table = Workspace(made.root, "", replace(unit, pieces=pieces)).received("near_losers", NEAR_LOSERS)
        urls = [row["url"] for row in read_rows(f"{made.root}/documents/{unit.name}.parquet", ["url"])]
        found |= {urls[row] for row in table["row"].to_pylist()}
    return found


# What was removed stays removed.


def test_what_was_removed_from_an_earlier_build_does_not_come_back(tmp_path: Path) -> None:
    a = built(plan(tmp_path / "a", write(tmp_path / "crawl-a", *A)))
    hashes = {row["url"]: row["sha256"] for row in rows(a.root, "images")}
    keys = (f"http://{FIFTH}.example/", "other.example", hashes[url("a")])
    tombstones.add(a.root, key_lists.parse("\n".join(keys), "a test"))
    crawl = write(tmp_path / "crawl-b", *B, [picture(url("f"), 1), article("mill", url("f"))])
    b = built(after(plan(tmp_path / "b", crawl), a))
    assert f"http://{FIFTH}.example/" not in documents(b)
    assert dropped(b, "documents", "extract", "pages") == {"removed": 1}
    found = pictures(b)
    assert found.keys() & {url("c", "other")} == set()  # pages of it name it no more
    assert found[url("f")][0] == "removed"
    assert not stored(b) & {hashes[url("a")], hashes[url("c", "other")]}
    assert set(tombstones.load(b.root)) == set(keys)


def test_removals_that_came_later_make_another_build(three: list[Plan], tmp_path: Path) -> None:
    a = replace(three[0], root=str(tmp_path / "a"))
    shutil.copytree(three[0].root, a.root)
    b = after(replace(three[1], root=str(tmp_path / "b")), a)
    tombstones.add(a.root, key_lists.parse("other.example", "a test"))
    again = after(b, a)
    was, now = describe(b), describe(again)
    assert why_step("extract", was, now) == [f"previous.removed: '' -> {again.build.previous.removed!r}"]
    assert b.stage("documents").work[0].fingerprint != again.stage("documents").work[0].fingerprint


# Which builds can be added to.


def copy(made: Plan, folder: Path) -> Plan:
    shutil.copytree(made.root, folder)
    return replace(made, root=str(folder))


@pytest.mark.parametrize("step", ["claim_lines", "documents", "images"])
def test_an_unfinished_build_is_refused_and_its_stage_named(step: str, three: list[Plan], tmp_path: Path) -> None:
    a = copy(three[0], tmp_path / "a")
    Path(a.root, "commits", step, "00001.json").unlink()
    stage = "images" if step == "images" else "documents"
    with pytest.raises(PreviousError, match=f"not finished: of its stage '{stage}', 1 of . units of the step '{step}'"):
        after(three[1], a)


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"{}", b'{"config": 1}'])
def test_what_is_no_build_is_refused(content: bytes | None, three: list[Plan], tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "build.json").write_bytes(content)
    with pytest.raises(PreviousError, match="build.json"):
        previous.find([str(tmp_path)], three[1].root, three[1].build)


def test_a_build_does_not_come_before_itself(three: list[Plan]) -> None:
    with pytest.raises(PreviousError, match="--output itself"):
        previous.find([three[1].root + "/"], three[1].root, three[1].build)
    with pytest.raises(PreviousError, match="twice"):
        previous.find([three[0].root, three[0].root + "/"], three[1].root, three[1].build)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda b: replace(b, documents=DocumentsConfig(text=TextRules(min_sentences=1))),
            "text.min_sentences: . -> 1",
        ),
        (lambda b: replace(b, images=replace(b.images, rules=ImageRules(min_side=1))), "images.rules.min_side"),
        (lambda b: replace(b, documents=DocumentsConfig(c4=("c4-train.json.gz",))), "C4's rules -> released C4"),
        (
            lambda b: replace(b, documents=DocumentsConfig(near_text=NearTextRules(threshold=0.5))),
            "documents.near_text.threshold: 0.8 -> 0.5",
        ),
    ],
)
def test_other_rules_are_refused_and_named(change: Any, said: str, three: list[Plan]) -> None:
    a, b, _ = three
    with pytest.raises(PreviousError, match=said):
        previous.find([a.root], b.root, change(b.build))


def test_other_settings_are_told(three: list[Plan]) -> None:
    a, b, _ = three
    other: Build = replace(b.build, documents=replace(b.build.documents, min_english=0.5))
    _, notes = previous.find([a.root], b.root, other)
    assert len(notes) == 1 and "documents.min_english: 0.99 -> 0.5" in notes[0]


def test_the_flag_needs_a_build_to_come(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--previous", "a", "--retry-failed", "--output", str(tmp_path)]) == 2
    assert "--previous belongs to a build that names its --crawl" in capsys.readouterr().err


def test_a_wrong_folder_is_told_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write(tmp_path / "crawl", [article(FIRST)])
    flags = ["--input", str(tmp_path / "crawl/*.warc.gz"), "--images", "archive", "--clip", "tiny"]
    code = main([*flags, "--previous", str(tmp_path / "nothing"), "--output", str(tmp_path / "out")])
    assert code == 1
    assert f"mmc4-build: --previous {tmp_path}/nothing: there is no build in it" in capsys.readouterr().err


# What a changed earlier build means.


def test_a_plan_without_earlier_builds_is_the_plan_it_was(three: list[Plan]) -> None:
    """Fingerprints of a build of before there was --previous, so that it goes on."""
    assert "previous" not in describe(three[0])["config"]
    assert three[0].fingerprints() != three[1].fingerprints()


def change(made: Plan, step: str) -> None:
    """Another output of one unit, as a retry, or a removal, leaves it."""
    (record,) = commits.load_all(made.root, step, ["00000"])
    outputs = tuple(replace(output, sha256="0" * 64) for output in record.outputs)
    commits.write(made.root, replace(record, outputs=outputs))


@pytest.mark.parametrize(
    ("step", "kept", "lost"),
    [
        ("documents", {"extract"}, {"previous_documents", "judge_urls", "judge_lines", "documents", "images"}),
        ("images", {"extract", "judge_urls", "judge_lines", "documents"}, {"previous_images", "images", "occurrences"}),
    ],
)
def test_a_changed_earlier_build_is_noticed(
    step: str, kept: set[str], lost: set[str], three: list[Plan], tmp_path: Path
) -> None:
    a = copy(three[0], tmp_path / "a")
    b = copy(three[1], tmp_path / "b")
    moved = after(b, a)
    assert moved.fingerprints() == b.fingerprints()  # where it lies changes nothing
    change(a, step)
    now = after(b, a)
    done = {w.step: len(w.committed(b.root)) for s in ("documents", "images") for w in now.stage(s).work}
    assert all(done[name] for name in kept) and not any(done[name] for name in lost)
    for name in kept | lost:
        assert bool(why_step(name, describe(moved), describe(now))) == (name in lost)
    claim(moved, reconfigure=False)
    with pytest.raises(BuildError, match=f"previous.{step}.{a.root}: .* pass --reconfigure"):
        claim(now, reconfigure=False)
    told = dry_run.report(now, ("documents", "images"))
    assert f"adds to {a.root}" in told and "would be refused" in told


# The parts.


def test_pages_and_lines_of_earlier_builds_are_found_by_hash() -> None:
    claims = pa.table([[5, 7, 9], ["t"] * 3, ["00000"] * 3, [0, 1, 2]], schema=URL_CLAIMS)
    assert known_pages(claims, pa.table([[9, 5]], schema=PREVIOUS_URLS)).tolist() == [True, False, True]
    assert known_pages(claims, PREVIOUS_URLS.empty_table()).tolist() == [False] * 3


def test_a_line_stays_with_the_first_build_that_has_it() -> None:
    big = 2**63 + 5
    earlier = pa.table([[big, big, big, 8], [30, 20, 10, 40], [0, 0, 1, 1]], schema=PREVIOUS_LINES)
    claims = pa.table([[big, big, 8, 9], [10, 20, 50, 60], ["00000"] * 4, range(4), [0] * 4], schema=LINE_CLAIMS)
    known, lost = known_lines(claims, earlier)
    assert known.tolist() == [True, True, True, False]
    assert lost.tolist() == [True, False, True, False]  # of build 0 the smallest hash, 20, keeps it
    known, lost = known_lines(claims, PREVIOUS_LINES.empty_table())
    assert not known.any() and not lost.any()


@pytest.mark.parametrize(("ours", "theirs"), [(4, 4), (4, 16), (16, 4), (1, 8), (8, 1)])
def test_buckets_of_builds_of_other_sizes_meet(ours: int, theirs: int) -> None:
    keys = np.random.default_rng(1).integers(0, 2**63, 200)
    for key in keys.tolist():
        assert key % theirs in meeting(key % ours, ours, theirs)
    visited = [bucket for own in range(ours) for bucket in meeting(own, ours, theirs)]
    assert len(visited) == max(ours, theirs)
