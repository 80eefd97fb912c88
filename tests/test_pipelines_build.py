"""Whole builds by the command line: complete, repeatable to the byte, and gone on with. For kills see kill_suite.py."""

import gzip
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from builds import COMMAND, digests, environment, run, start, write_corner
from consumers import mm_interleaved, openflamingo

from mmc4_builder.funnel import Funnel
from mmc4_builder.mmc4_format import read_docs_zip
from mmc4_builder.shards import read_shard
from mmc4_builder.validate import format_report, validate
from mmc4_builder.workspace import read_rows

pytestmark = pytest.mark.timeout(400)  # whole builds, on a machine that may have other things to do

RESULTS = ("docs", "shards", "images", "documents", "scores", "interleave", "commits")


@pytest.fixture(scope="session")
def corner(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_corner(tmp_path_factory.mktemp("corner"), files=2)


@pytest.fixture(scope="session")
def flags(corner: list[Path]) -> list[object]:
    return ["--input", *corner, "--images", "archive", "--clip", "tiny", "--config", "sample", "--workers", 1]


@pytest.fixture(scope="session")
def built(flags: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed build by one process."""
    root = tmp_path_factory.mktemp("built") / "out"
    run(*flags, "--output", root)
    return root


def test_a_build_is_valid_and_adds_up(built: Path) -> None:
    report = validate(built, min_similarity=0.15)
    assert report.ok, format_report(report)
    funnel = Funnel.from_json((built / "funnel.json").read_text())
    kept = {(step.stage, step.unit): step.kept for step in funnel.steps}
    assert kept["interleave", "documents"] == kept["shards", "samples"] > 10
    (documents,) = (step for step in funnel.steps if (step.stage, step.unit) == ("interleave", "documents"))
    assert kept["documents", "pages"] == documents.entered == documents.kept + documents.dropped
    described = json.loads((built / "build.json").read_text())
    assert described["config"]["interleave"]["min_similarity"] == 0.15
    assert described["versions"]["apache-beam"]
    assert "<html" in (built / "report.html").read_text()


def test_shards_hold_the_documents_with_provenance(built: Path) -> None:
    docs = [doc for path in sorted((built / "docs").iterdir()) for doc in read_docs_zip(path)]
    samples = [sample for path in sorted((built / "shards").glob("*.tar")) for sample in read_shard(path)]
    assert [sample.doc["text_list"] for sample in samples] == [doc["text_list"] for doc in docs]
    for sample in samples:
        assert sample.doc["provenance"]["warc"].endswith(".warc.gz")
        assert len(sample.images) == len(sample.doc["image_info"])
        for image in sample.doc["image_info"]:
            assert 0 <= image["dom_text_index"] <= len(sample.doc["text_list"])
            assert len(image["sha256"]) == 64


def test_running_again_does_nothing(flags: list[object], built: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (built / "commits").rglob("*.json")}
    again = run(*flags, "--output", built)
    assert "nothing to do" in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (built / "commits").rglob("*.json")}


def test_the_number_of_workers_changes_no_byte(flags: list[object], built: Path, tmp_path: Path) -> None:
    run(*flags, "--output", tmp_path / "out", "--workers", 2)
    assert digests(tmp_path / "out", *RESULTS) == digests(built, *RESULTS)


def test_a_deleted_tar_comes_back(flags: list[object], built: Path) -> None:
    before = digests(built, *RESULTS)
    (built / "shards/00000.tar").unlink()
    assert "ran shards." in run(*flags, "--output", built).stdout
    assert digests(built, *RESULTS) == before


def committed(root: Path) -> int:
    return sum(1 for _ in (root / "commits").rglob("*.json"))


def test_a_dead_worker_ends_the_run_and_the_next_goes_on(flags: list[object], built: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    process = start(*flags, "--output", root, "--workers", 2)
    while committed(root) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    started = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert time.monotonic() - started < 60
    assert "a worker process died" in err
    run(*flags, "--output", root)
    assert digests(root, *RESULTS) == digests(built, *RESULTS)


def test_workers_end_with_a_killed_launcher(flags: list[object], tmp_path: Path) -> None:
    process = start(*flags, "--output", tmp_path / "out", "--workers", 2)
    while len(pids := workers(process.pid)) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    wait_until_gone(pids)


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def workers(launcher: int) -> list[int]:
    """Worker processes of a launcher."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(launcher)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "pipelines.worker" in line]


def test_another_configuration_is_refused_and_on_demand_redone(
    flags: list[object], built: Path, tmp_path: Path
) -> None:
    root = tmp_path / "out"
    subprocess.run(["cp", "-r", built, root], check=True)
    changed = [*flags, "--output", root, "--workers", 1, "--shard-format", "openflamingo"]
    refused = run(*changed, code=1).stderr
    assert "shards.format: 'mmc4' -> 'openflamingo'" in refused
    assert "--reconfigure" in refused
    assert "ran shards." in run(*changed, "--reconfigure").stdout
    assert [path.name for path in (root / "shards").glob("*.tar")] == ["000000000.tar"]
    report = validate(root)
    assert report.ok, format_report(report)
    assert digests(root, "docs") == digests(built, "docs")
    sequences = list(openflamingo(sorted((root / "shards").glob("*.tar")), min_bytes=0))
    assert len(sequences) > 10
    assert not any(sequence.swapped for sequence in sequences)


def test_a_published_loader_reads_the_docs(built: Path, tmp_path: Path) -> None:
    """MM-Interleaved's reader, written from its contract; pictures in a flat folder, as it expects."""
    for path in sorted((built / "shards").glob("*.tar")):
        for sample in read_shard(path):
            for info, data in zip(sample.doc["image_info"], sample.images, strict=True):
                (tmp_path / info["image_name"]).write_bytes(data)
    zips = sorted((built / "docs").glob("*.zip"))
    read = [sequence for path in zips for sequence in mm_interleaved(path, tmp_path, seed=1)]
    assert len(read) > sum(1 for path in zips for _ in read_docs_zip(path)) / 2


def test_another_crawl_is_refused(flags: list[object], corner: list[Path], built: Path) -> None:
    fewer = ["--input", corner[0], *flags[1 + len(corner) :], "--output", built]
    assert "2 -> 1 WARC files" in run(*fewer, code=1).stderr


def test_input_without_a_page_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.warc.gz").write_bytes(b"no WARC file at all" * 100)
    flags = ["--input", tmp_path / "x.warc.gz", "--images", "archive", "--clip", "tiny", "--workers", 1]
    refused = run(*flags, "--output", tmp_path / "out", code=1).stderr
    assert "no HTML page in 1 WARC files" in refused
    assert "x.warc.gz" in refused
    assert "1 garbage" in refused


def test_an_interrupted_build_says_so_and_leaves_no_worker(flags: list[object], tmp_path: Path) -> None:
    process = start(*flags, "--output", tmp_path / "out", "--workers", 2)
    while len(pids := workers(process.pid)) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on from here" in err
    wait_until_gone(pids)


def test_stages_can_be_run_one_by_one(flags: list[object], built: Path, tmp_path: Path) -> None:
    out = ["--output", tmp_path / "out", "--workers", 1]
    assert "run --stages documents first" in run(*flags, *out, "--stages", "images", code=1).stderr
    run(*flags, *out, "--stages", "documents,images")
    assert not (tmp_path / "out/docs").exists()
    run(*flags, *out, "--stages", "scores,interleave,shards")
    assert digests(tmp_path / "out", *RESULTS) == digests(built, *RESULTS)


def test_released_c4_gives_back_its_own_documents(flags: list[object], built: Path, tmp_path: Path) -> None:
    """C4 files made of the rules' own documents select exactly these, sentence by sentence, picture by picture."""
    rows = [row for path in sorted((built / "documents").glob("*.parquet")) for row in read_rows(str(path))]
    lines = [{"text": " ".join(row["sentences"]), "timestamp": row["timestamp"], "url": row["url"]} for row in rows]
    lines.append({"text": "Not in the crawl.", "timestamp": rows[0]["timestamp"], "url": "http://else.example/"})
    (tmp_path / "c4").mkdir()
    with gzip.open(tmp_path / "c4/c4-train.00000-of-01024.json.gz", "wt") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)
        stream.write("not json\n")
    run(*flags, "--c4", tmp_path / "c4", "--output", tmp_path / "out", "--stages", "documents")
    found = [row for path in sorted((tmp_path / "out/documents").glob("*.parquet")) for row in read_rows(str(path))]
    assert [(row["url"], row["sentences"]) for row in found] == [(row["url"], row["sentences"]) for row in rows]
    funnel = Funnel.from_json((tmp_path / "out/funnel.json").read_text())
    c4 = next(step for step in funnel.steps if step.unit == "c4")
    assert dict(c4.reasons) == {"not_a_c4_document": 1, "page_not_in_crawl": 1}


def test_a_full_disk_is_a_clear_error_and_the_next_run_goes_on(
    flags: list[object], built: Path, tmp_path: Path
) -> None:
    """Files are limited to 100 kB, which is what a full disk looks like to a writer."""
    root = tmp_path / "out"
    script = 'ulimit -f 100; exec "$@"'
    words = [*COMMAND, *map(str, flags), "--output", str(root), "--workers", "1"]
    limited = subprocess.run(["bash", "-c", script, "bash", *words], env=environment(), capture_output=True, text=True)
    assert limited.returncode == 1
    assert "make room" in limited.stderr
    assert not list(root.rglob("images/*.tar"))
    run(*flags, "--output", root)
    assert digests(root, *RESULTS) == digests(built, *RESULTS)
