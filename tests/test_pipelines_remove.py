"""Removal from whole builds: what is named is nowhere, the rest is untouched, and nothing comes back."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builds import environment
from small_crawls import article, img, jpeg, page, paragraphs, picture, prose, redirect, rows, write
from small_crawls import plan as small_plan

from mmc4_builder import absence, key_lists, storage
from mmc4_builder.funnel import Funnel
from mmc4_builder.mmc4_format import docs_stem, read_docs_zip
from mmc4_builder.shards import read_shard
from mmc4_builder.validate import format_report, validate
from pipelines import remove, replacement
from pipelines.build import BuildError, build
from pipelines.config import InterleaveConfig, ShardsConfig
from pipelines.launch import Engine, EngineError
from pipelines.plan import Plan

pytestmark = pytest.mark.timeout(400)  # whole builds, on a machine that may have other things to do

ONE = Engine(workers=1)
PERMISSIVE = InterleaveConfig(min_similarity=-1.0, max_nsfw=1.0)
AMBER, BIRCH, CEDAR, DAHLIA, ELM, FERN = (
    f"http://{n}.example/" for n in ("amber", "birch", "cedar", "dahlia", "elm", "fern")
)
WORDS = "More of it stands at http://amber.example/more.html for all who read."


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Six documents in tars of two. Two show the same picture, one a picture of another's host, one by a redirect."""
    folder = tmp_path_factory.mktemp("removal")
    first = [
        article("amber", f"{AMBER}1.jpg", f"{AMBER}2.jpg"),
        article("birch", f"{BIRCH}1.jpg", f"{BIRCH}2.jpg"),
        article("cedar", f"{CEDAR}r.jpg"),
        *(picture(f"{AMBER}{n}.jpg", n) for n in (1, 2, 3)),
        *(picture(f"{BIRCH}{n}.jpg", 10 + n) for n in (1, 2)),
    ]
    second = [
        article("dahlia", f"{DAHLIA}same.jpg", f"{DAHLIA}2.jpg"),
        article("elm", f"{AMBER}3.jpg", f"{ELM}1.jpg"),
        page(FERN, paragraphs([*prose("fern"), WORDS]) + img(f"{FERN}1.jpg", f"{FERN}no.jpg"), ("Link", f"<{AMBER}>")),
        picture(f"{DAHLIA}same.jpg", 11),
        picture(f"{DAHLIA}2.jpg", 21),
        picture(f"{ELM}1.jpg", 31),
        picture(f"{FERN}1.jpg", 41),
        redirect(f"{CEDAR}r.jpg", "http://cdn.example/r.jpg"),
        picture("http://cdn.example/r.jpg", 51),
    ]
    crawl = write(folder / "crawl", first, second)
    plan = small_plan(folder / "out", crawl, interleave=PERMISSIVE, shards=ShardsConfig(documents=2))
    build(plan, ONE, stream=io.StringIO())
    assert urls(plan) == [AMBER, BIRCH, CEDAR, DAHLIA, ELM, FERN]
    return plan


@pytest.fixture
def plan(built: Plan, tmp_path: Path) -> Plan:
    """A copy of the build to take things out of."""
    shutil.copytree(built.root, tmp_path / "out")
    return replace(built, root=str(tmp_path / "out"))


def take_out(plan: Plan, *keys: str) -> int:
    return remove.run(plan, key_lists.parse("\n".join(keys), "list"), ONE, io.StringIO())


def docs(plan: Plan) -> list[dict[str, Any]]:
    return [doc for path in sorted(Path(plan.root, "docs").glob("*.zip")) for doc in read_docs_zip(path)]


def urls(plan: Plan) -> list[str]:
    return [doc["url"] for doc in docs(plan)]


def pictures(plan: Plan) -> dict[str, list[str]]:
    return {doc["url"]: sorted(info["raw_url"] for info in doc["image_info"]) for doc in docs(plan)}


def samples(plan: Plan) -> dict[str, list[str]]:
    """Keys of the samples and addresses of their documents, by tar."""
    tars = sorted(Path(plan.root, "shards").glob("*.tar"))
    return {path.name: [f"{sample.key} {sample.doc['url']}" for sample in read_shard(path)] for path in tars}


def contents(root: str | Path) -> dict[str, bytes]:
    """Every file but the proofs, which hold the time."""
    found = {path: Path(root, path).read_bytes() for path in storage.walk(str(root))}
    return {path: data for path, data in found.items() if not path.startswith("removals/proof")}


def changed(before: Plan, after: Plan, folder: str) -> list[str]:
    was, now = contents(before.root), contents(after.root)
    return sorted(p for p in was.keys() | now.keys() if p.startswith(f"{folder}/") and was.get(p) != now.get(p))


def funnel(plan: Plan) -> dict[tuple[str, str], dict[str, int]]:
    steps = Funnel.from_json(Path(plan.root, "funnel.json").read_text()).steps
    return {(s.stage, s.unit): {"entered": s.entered, "kept": s.kept, **dict(s.reasons)} for s in steps}


def assert_sound(plan: Plan) -> None:
    report = validate(Path(plan.root))
    assert report.ok, format_report(report)
    again = build(plan, ONE, stream=io.StringIO())
    assert again.ran == ()


def test_a_document(built: Plan, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert take_out(plan, FERN) == 0
    assert urls(plan) == [AMBER, BIRCH, CEDAR, DAHLIA, ELM]
    assert changed(built, plan, "shards") == ["shards/00002.tar", "shards/sizes.json"]
    assert changed(built, plan, "docs") == [f"docs/{docs_stem(1)}.jsonl.zip"]
    assert samples(plan)["00002.tar"] == [f"00002000000 {ELM}"]
    said = capsys.readouterr().out
    assert "removed 1 documents" in said
    assert f"{FERN}     0" in said
    counts = funnel(plan)
    assert counts["documents", "pages"] == {"entered": 6, "kept": 5, "removed": 1}
    assert counts["interleave", "documents"] == {"entered": 6, "kept": 5, "removed": 1}
    assert counts["shards", "samples"] == {"entered": 6, "kept": 5, "removed": 1}
    assert {row["url"] for row in rows(plan.root, "images")} >= {f"{FERN}1.jpg"}
    decisions = rows(plan.root, "interleave")
    assert [(row["reason"], row["line"]) for row in decisions] == [
        (None, 0), (None, 1), (None, 2), (None, 0), (None, 1), ("removed", 2)
    ]  # fmt: skip
    assert_sound(plan)


def test_a_picture_that_another_address_shows_too(built: Plan, plan: Plan) -> None:
    assert take_out(plan, "https://www.birch.example/1.jpg#x") == 0
    before, after = pictures(built), pictures(plan)
    assert after == {**before, BIRCH: [f"{BIRCH}2.jpg"]}
    assert changed(built, plan, "shards") == ["shards/00000.tar"]
    assert samples(plan) == samples(built)
    assert hashlib.sha256(jpeg(11)).hexdigest() in {row["sha256"] for row in rows(plan.root, "images")}
    counts = funnel(plan)["interleave", "images"]
    assert counts["removed"] == 1
    assert_sound(plan)


def test_a_hash(built: Plan, plan: Plan) -> None:
    """Both addresses that show the picture lose it, and so do the store and the tars."""
    (sha256,) = {row["sha256"] for row in rows(plan.root, "images") if row["url"] == f"{BIRCH}1.jpg"}
    assert take_out(plan, sha256.upper()) == 0
    assert pictures(plan) == {**pictures(built), BIRCH: [f"{BIRCH}2.jpg"], DAHLIA: [f"{DAHLIA}2.jpg"]}
    assert changed(built, plan, "shards") == ["shards/00000.tar", "shards/00001.tar"]
    mentioned = {image["url"] for row in rows(plan.root, "documents") for image in row["images"]}
    assert not mentioned & {f"{BIRCH}1.jpg", f"{DAHLIA}same.jpg"}
    assert data_of(plan, sha256) == []
    assert len(data_of(built, sha256)) > 2
    assert_sound(plan)


def data_of(plan: Plan, sha256: str) -> list[str]:
    """Files that hold a picture, or its hash."""
    needles = absence.Needles.of([sha256])
    paths = [path for path in storage.walk(plan.root) if not path.startswith("removals/")]
    return [path for path in paths if absence.search(storage.join(plan.root, path), needles)[0]]


def test_a_domain(built: Plan, plan: Plan) -> None:
    """Its page, its pictures wherever they are shown, and addresses of it that stand in texts and headers."""
    assert take_out(plan, "amber.example") == 0
    kept = {url: shown for url, shown in pictures(built).items() if url != AMBER}
    assert pictures(plan) == {**kept, ELM: [f"{ELM}1.jpg"]}
    (fern,) = (doc for doc in docs(plan) if doc["url"] == FERN)
    assert "More of it stands at [removed] for all who read." in fern["text_list"]
    assert changed(built, plan, "shards") == ["shards/00000.tar", "shards/00002.tar", "shards/sizes.json"]
    proof = json.loads(Path(plan.root, "removals/proof-1.json").read_text())
    assert [(key["key"], key["hits"]) for key in proof["keys"]] == [("amber.example", 0)]
    assert proof["removed"]["documents.removed"] == 1
    assert proof["removed"]["pictures.removed"] == 3
    assert_sound(plan)


def test_a_host_that_pictures_were_led_to(built: Plan, plan: Plan) -> None:
    """Its only document loses its only picture, and goes; its place among the others stays empty."""
    assert take_out(plan, "cdn.example") == 0
    assert urls(plan) == [AMBER, BIRCH, DAHLIA, ELM, FERN]
    assert samples(plan)["00001.tar"] == [f"00001000001 {DAHLIA}"]
    assert [row["reason"] for row in rows(plan.root, "interleave")][2] == "no_images_left"
    assert_sound(plan)


def test_everything_of_a_tar_in_the_other_layout(plan: Plan) -> None:
    """An empty tar keeps its name: no other tar shifts."""
    plan = replace(plan, build=replace(plan.build, shards=ShardsConfig(documents=2, format="openflamingo")))
    build(plan, ONE, reconfigure=True, stream=io.StringIO())
    assert take_out(plan, "birch.example", AMBER) == 0
    kept = [[sample.doc["url"] for sample in read_shard(p)] for p in sorted(Path(plan.root, "shards").glob("*.tar"))]
    assert kept == [[], [CEDAR, DAHLIA], [ELM, FERN]]
    assert json.loads(Path(plan.root, "shards/sizes.json").read_text())["000000000.tar"] == 0
    assert_sound(plan)


def test_removals_add_up_and_nothing_comes_back(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    take_out(plan, "amber.example")
    before = contents(plan.root)
    capsys.readouterr()
    take_out(plan, "nothing.example")
    assert capsys.readouterr().out.startswith("nothing here is named by these keys")
    after = contents(plan.root)
    assert {p for p in after if after[p] != before.get(p)} == {"removals/keys.txt"}
    for step in ("images", "interleave"):
        for path in Path(plan.root, "commits", step).iterdir():
            path.unlink()
    build(plan, ONE, stream=io.StringIO())
    assert AMBER not in urls(plan)
    assert not any("amber.example" in (row["url"] if row["sha256"] else "") for row in rows(plan.root, "images"))


def test_only_files_that_name_it_are_written(plan: Plan) -> None:
    before = {path: Path(plan.root, path).stat().st_mtime_ns for path in storage.walk(plan.root)}
    take_out(plan, f"{ELM}1.jpg")
    written = {p for p in before if Path(plan.root, p).stat().st_mtime_ns != before[p]}
    assert "documents/00001.parquet" in written
    assert "shards/00002.tar" in written
    assert not written & {"documents/00000.parquet", "interleave/00000.parquet", "shards/00000.tar", "shards/00001.tar"}
    assert not [p for p in written if p.startswith("commits/") and p.endswith("/00000.json") and "extract" in p]


def test_the_proof_finds_what_was_planted(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    name = "documents/note.html"
    Path(plan.root, "note.html").write_text("<a href='http://amber.example/1.jpg'>")
    Path(plan.root, name).write_text("<a href='http://amber.example/1.jpg'>")
    assert take_out(plan, f"{AMBER}1.jpg") == 1
    assert f"LEFT: {AMBER}1.jpg in note.html, 1 times" in capsys.readouterr().out
    assert not Path(plan.root, name).exists()  # in a folder of ours, and of no record: an earlier build left it
    proof = json.loads(Path(plan.root, "removals/proof-1.json").read_text())
    assert proof["keys"][0]["files"] == {"note.html": 1}


def test_an_unfinished_build(built: Plan, tmp_path: Path) -> None:
    plan = replace(built, root=str(tmp_path / "out"))
    build(plan, ONE, stages=("documents", "images"), stream=io.StringIO())
    assert take_out(plan, "amber.example", f"{BIRCH}2.jpg") == 0
    assert "" in [row["url"] for row in rows(plan.root, "documents")]
    build(plan, ONE, stream=io.StringIO())
    assert urls(plan) == [BIRCH, CEDAR, DAHLIA, ELM, FERN]
    assert pictures(plan)[BIRCH] == [f"{BIRCH}1.jpg"]
    assert take_out(plan, "amber.example") == 0


def test_an_empty_list_is_refused(plan: Plan) -> None:
    with pytest.raises(BuildError, match="holds no key"):
        take_out(plan, "# nothing")


KEYS = ("amber.example", f"{BIRCH}1.jpg", "cdn.example")


@pytest.fixture(scope="module")
def undisturbed(built: Plan, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    root = tmp_path_factory.mktemp("undisturbed") / "out"
    shutil.copytree(built.root, root)
    plan = replace(built, root=str(root))
    assert take_out(plan, *KEYS) == 0
    return plan


@pytest.mark.parametrize("moves", [17])
def test_a_removal_that_stops_anywhere_goes_on(
    moves: int, undisturbed: Plan, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after so many files have been put in their places."""
    real, left = replacement._move, iter(range(moves))

    def stops(source: str, target: str) -> None:
        if next(left, None) is None:
            raise KeyError("stopped")
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(replacement, "_move", stops)
        with pytest.raises(EngineError, match="stopped"):
            take_out(plan, *KEYS)
    assert replacement.unfinished(plan.root)
    assert take_out(plan, *KEYS) == 0
    assert contents(plan.root) == contents(undisturbed.root)


def test_kill_9_changes_no_byte(undisturbed: Plan, plan: Plan) -> None:
    for step in ("erase", "erase_docs"):
        with started(plan) as process:
            while process.poll() is None and not list(Path(plan.root, "commits", step).glob("*.json")):
                time.sleep(0.001)
            process.kill()
        assert process.returncode == -9
    assert take_out(plan, *KEYS) == 0
    assert contents(plan.root) == contents(undisturbed.root)


def started(plan: Plan) -> "subprocess.Popen[bytes]":
    script = (
        "import sys\n"
        "from mmc4_builder import key_lists\n"
        "from pipelines import build, launch, remove\n"
        "keys = key_lists.parse('\\n'.join(sys.argv[2:]), 'list')\n"
        "remove.run(build.continued(sys.argv[1]), keys, launch.Engine(workers=1))\n"
    )
    words = [sys.executable, "-c", script, plan.root, *KEYS]
    return subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
