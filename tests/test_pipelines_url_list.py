"""URL lists for img2dataset: what is wanted and nobody refuses, once each, in a form that img2dataset reads."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_crawls import TIMESTAMP, article, plan, run, run_until, write

from mmc4_builder.warc import Response
from mmc4_builder.workspace import read_rows
from pipelines.config import ImagesConfig
from pipelines.plan import Plan
from pipelines.url_list import UrlLists, total

WANTED = [
    "http://fine.example/a.jpg",
    "http://fine.example/b.jpg",
    "http://says.example/public.jpg",
    "http://quiet.example/c.jpg",
]
REFUSED = ["http://says.example/private/a.jpg", "http://listed.example/a.jpg", "http://removed.example/a.jpg"]
ROBOTS = Response(
    url="http://says.example/robots.txt", timestamp=TIMESTAMP, payload=b"User-agent: *\nDisallow: /private/"
)


@pytest.fixture
def made(tmp_path: Path) -> Plan:
    """A build that knows its mentions, with a list of opt-outs and a removal."""
    first, second = article("mill", *WANTED, *REFUSED), article("barn", WANTED[0], "http://x.example/logo.jpg")
    images = ImagesConfig(source="archive", optout_keys=("listed.example",))
    build = plan(tmp_path / "out", write(tmp_path / "crawl", [first, ROBOTS], [second]), images=images)
    run_until(build, "images")
    (tmp_path / "out/removals").mkdir()
    (tmp_path / "out/removals/keys.txt").write_text("removed.example\n")
    return build


def write_lists(made: Plan, folder: Path) -> list[list[str]]:
    run(UrlLists(made.root, made.fingerprints()["images"], str(folder), made.build.images, made.files, made.buckets))
    return [[row["url"] for row in read_rows(str(path))] for path in sorted(folder.glob("*.parquet"))]


def test_what_is_wanted_is_listed_once(made: Plan, tmp_path: Path) -> None:
    lists = write_lists(made, tmp_path / "urls")
    assert len(lists) == len(made.buckets)
    assert sorted(url for urls in lists for url in urls) == sorted(WANTED)
    assert all(urls == sorted(urls) for urls in lists)
    assert total(str(tmp_path / "urls")) == len(WANTED)


def test_it_is_written_anew_each_time(made: Plan, tmp_path: Path) -> None:
    write_lists(made, tmp_path / "urls")
    before = {path.name: path.read_bytes() for path in (tmp_path / "urls").iterdir()}
    write_lists(made, tmp_path / "urls")
    assert {path.name: path.read_bytes() for path in (tmp_path / "urls").iterdir()} == before
    keys = ("fine.example", "says.example", "quiet.example", "listed.example")
    build = replace(made.build, images=replace(made.build.images, optout_keys=keys))
    assert write_lists(replace(made, build=build), tmp_path / "urls") == [[]] * len(made.buckets)


READ = """
import sys
from img2dataset.reader import Reader
reader = Reader(sys.argv[1], "parquet", "url", None, None, None, None, 2, set(), sys.argv[2])
import pyarrow as pa
for _, shard in reader:
    print(*("URL " + url for url in pa.ipc.open_file(shard).read_all()["url"].to_pylist()), sep="\\n")
"""


def test_img2dataset_reads_it(made: Plan, tmp_path: Path) -> None:
    if importlib.util.find_spec("img2dataset") is None:
        pytest.skip("img2dataset is not installed")
    write_lists(made, tmp_path / "urls")
    (tmp_path / "shards").mkdir()
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "urls"), str(tmp_path / "shards")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(line[4:] for line in done.stdout.splitlines() if line.startswith("URL ")) == sorted(WANTED)
