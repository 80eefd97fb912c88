"""Pictures that the real img2dataset has fetched: indexed in its tars, joined on URL, and every failure named."""

import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import Fault, FolderServer, serve
from small_crawls import article, assert_adds_up, counts, jpeg, plan, run, run_until, write

from mmc4_builder.commits import Commit, load_all
from mmc4_builder.workspace import Unit, Workspace, read_rows
from pipelines.config import ImagesConfig
from pipelines.image_store import StoreError, best, index_store, read, reason_of, store_units
from pipelines.plan import Plan
from pipelines.schemas import IMPORTED
from pipelines.units import Step, run_unit
from pipelines.url_list import UrlLists, total

DOWNLOAD = """
import sys
from img2dataset import download
if __name__ == "__main__":
    download(
        url_list=sys.argv[1], output_folder=sys.argv[2], input_format="parquet", output_format="webdataset",
        processes_count=1, thread_count=8, number_sample_per_shard=8, resize_mode="no",
        skip_reencode=True, enable_wandb=False, timeout=2,
    )
"""
GOOD = [f"{number}.jpg" for number in range(9)]
FAULTS = {
    "gone.jpg": (Fault(times=None, status=410), "http_410"),
    "broken.jpg": (Fault(times=None, status=500), "http_500"),
    "page.jpg": (Fault(times=None, body=b"<html>404"), "not_an_image"),
    "noai.jpg": (Fault(times=None, body=jpeg(1), headers={"X-Robots-Tag": "noai"}), "optout_header"),
    "absent.jpg": (Fault(), "http_404"),
    "small.jpg": (Fault(times=None, body=jpeg(1, 40, 40)), "too_small"),
}


def img2dataset(urls: Path, folder: Path) -> None:
    """Its own download, in a process of its own."""
    script = folder.parent / "download.py"
    script.write_text(DOWNLOAD)
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, str(script), str(urls), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderServer]:
    folder = tmp_path_factory.mktemp("web")
    for number, name in enumerate(GOOD):
        (folder / name).write_bytes(jpeg(number))
    with serve(folder) as running:
        for name, (fault, _) in FAULTS.items():
            running.fail(name, fault)
        yield running


@pytest.fixture(scope="module")
def downloaded(server: FolderServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """A build that wrote its URL lists, and the folder that img2dataset made of them."""
    if importlib.util.find_spec("img2dataset") is None:
        pytest.skip("img2dataset is not installed")
    folder = tmp_path_factory.mktemp("store")
    urls = [server.url(f"/{name}") for name in (*GOOD, *FAULTS)]
    made = plan(folder / "out", write(folder / "crawl", [article("mill", *urls)]))
    run_until(made, "images")
    run(
        UrlLists(
            made.root, made.fingerprints()["images"], str(folder / "urls"), made.build.images, made.files, made.buckets
        )
    )
    assert total(str(folder / "urls")) == len(urls)
    img2dataset(folder / "urls", folder / "store")
    return made, folder / "store"


def built(made: Plan, store: Path, root: Path) -> tuple[Plan, dict[str, dict[str, Any]]]:
    """The images stage of the same documents with the pictures of the store; rows by the last part of their URL."""
    skipped = shutil.ignore_patterns("images", "mention", "occurrences", "aliases", "redirects", "frequent")
    shutil.copytree(made.root, root, ignore=skipped)
    made = plan(root, made.crawl, images=ImagesConfig(source="store", store=str(store)))
    run(made.stage("images").transform)
    paths = sorted((root / "images").glob("[0-9]*.parquet"))
    return made, {row["url"].rsplit("/", 1)[-1]: row for path in paths for row in read_rows(str(path))}


def test_every_picture_is_taken_and_every_failure_named(downloaded: tuple[Plan, Path], tmp_path: Path) -> None:
    made, rows = built(*downloaded, tmp_path / "out")
    assert {name: row["reason"] for name, row in rows.items() if row["reason"]} == {
        name: reason for name, (_, reason) in FAULTS.items()
    }
    for number, name in enumerate(GOOD):
        row = rows[name]
        assert row["original_sha256"] == hashlib.sha256(jpeg(number)).hexdigest()
        assert (row["origin"], row["fetched"][:2]) == ("store", "20")
    assert_adds_up(counts(made, "images")["images"])
    assert_adds_up(counts(made, "images")["index_store"])


def test_a_truncated_tar_costs_what_lies_behind_the_cut(downloaded: tuple[Plan, Path], tmp_path: Path) -> None:
    made, store = downloaded
    shutil.copytree(store, tmp_path / "store")
    tar = tmp_path / "store/00000.tar"
    with tarfile.open(tar) as opened:
        pictures = [member for member in opened if member.name.endswith(".jpg")]
    cut = pictures[-1].offset_data + 100
    tar.write_bytes(tar.read_bytes()[:cut])
    made, rows = built(made, tmp_path / "store", tmp_path / "out")
    lost = [name for name, row in rows.items() if row["reason"] == "truncated_tar"]
    assert len(lost) == 1
    assert sum(row["reason"] is None for row in rows.values()) == len(GOOD) - 1
    letters = (tmp_path / "out/dead_letters/index_store/00000.jsonl").read_text()
    assert "truncated_tar" in letters and str(tar) in letters


def test_a_url_that_is_not_in_the_store_is_told(downloaded: tuple[Plan, Path], tmp_path: Path) -> None:
    """The tar without its Parquet file: what the JSON within describes is there, failures are not known."""
    made, store = downloaded
    shutil.copytree(store, tmp_path / "store")
    for path in (tmp_path / "store").glob("*.parquet"):
        path.unlink()
    _, rows = built(made, tmp_path / "store", tmp_path / "out")
    expected = dict.fromkeys(GOOD) | dict.fromkeys(FAULTS, "not_in_store") | {"small.jpg": "too_small"}
    assert {name: row["reason"] for name, row in rows.items()} == expected


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("HTTP Error 404: Not Found", "http_404"),
        ("HTTP Error 999: <anything a server says>", "http_999"),
        ("<urlopen error timed out>", "timeout"),
        ("The read operation timed out", "timeout"),
        ("<urlopen error [Errno -2] Name or service not known>", "dns_failure"),
        ("<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed>", "tls_failed"),
        ("<urlopen error [Errno 111] Connection refused>", "connect_failed"),
        ("Remote end closed connection without response", "connection_reset"),
        ("IncompleteRead(100 bytes read, 200 more expected)", "truncated_body"),
        ("Use of image disallowed by X-Robots-Tag directive", "optout_header"),
        ("image decoding error", "not_an_image"),
        ("hash mismatch", "hash_mismatch"),
        ("something else, " * 100, "store_failed"),
        ("", "store_failed"),
    ],
)
def test_reasons_are_few(error: str, reason: str) -> None:
    assert reason_of(error) == reason


def test_of_two_rows_of_a_url_the_one_with_a_picture_counts() -> None:
    rows = [
        {"key": 1, "url": "u", "reason": "timeout", "tar": "0.tar", "offset": None, "length": None},
        {"key": 1, "url": "u", "reason": None, "tar": "2.tar", "offset": 512, "length": 3},
        {"key": 1, "url": "u", "reason": None, "tar": "1.tar", "offset": 512, "length": 4},
        {"key": 2, "url": "v", "reason": "http_404", "tar": "1.tar", "offset": None, "length": None},
    ]
    found = best(pa.Table.from_pylist(rows, schema=IMPORTED))
    assert (found["u"]["tar"], found["v"]["reason"]) == ("1.tar", "http_404")


def test_a_folder_without_tars_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="webdataset"):
        store_units(str(tmp_path))


# Tars as nobody should write them.


def tar_of(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size, info.mtime = len(data), 1_700_000_000
            tar.addfile(info, io.BytesIO(data))
    return path


def indexed(path: Path, root: Path) -> tuple[Commit, list[dict[str, Any]]]:
    """What the index of one tar says."""
    unit = Unit(name="00000", inputs=(str(path), str(path.stat().st_size)))

    def step(unit: Unit, workspace: Workspace) -> None:
        index_store(unit, workspace, buckets=1)

    run_unit(unit, Step(name="index_store", root=str(root), fingerprint="f", run=step))
    (commit,) = load_all(str(root), "index_store", ["00000"])
    received = Workspace(str(root), "", Unit(name="", pieces=commit.pieces.get("00000", ())))
    return commit, received.received("imported", IMPORTED).to_pylist()


def test_places_are_those_of_the_bytes(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "0.tar", a_jpg=b"picture", a_json=b'{"url": "http://x.example/a.jpg"}')
    _, (row,) = indexed(path, tmp_path / "out")
    assert read(row["tar"], row["offset"], row["length"]) == (b"picture", "2023-11-14T22:13:20Z")


@pytest.mark.parametrize("json", [b"", b"[]", b"{", b"[" * 5000, b'{"url": 7}', b"\xff", b"null"])
def test_descriptions_that_are_none_are_passed_over(json: bytes, tmp_path: Path) -> None:
    path = tar_of(tmp_path / "0.tar", a_jpg=b"picture", a_json=json)
    assert indexed(path, tmp_path / "out")[1] == []


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100, bytes(512), b"\x1f\x8b" + bytes(600)])
def test_what_is_no_tar_is_told(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    path.write_bytes(data)
    table = pa.table({"key": ["a"], "url": ["http://x.example/a.jpg"], "error_message": pa.nulls(1, pa.string())})
    pq.write_table(table, tmp_path / "0.parquet")
    commit, (row,) = indexed(path, tmp_path / "out")
    assert commit.counts["tars.dropped.truncated_tar"] == 1
    assert row["reason"] == "truncated_tar"


def test_a_torn_parquet_file_is_made_up_for_by_the_tar(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "0.tar", a_jpg=b"picture", a_json=b'{"url": "http://x.example/a.jpg"}')
    (tmp_path / "0.parquet").write_bytes(b"PAR1")
    _, (row,) = indexed(path, tmp_path / "out")
    assert (row["url"], row["reason"]) == ("http://x.example/a.jpg", None)
