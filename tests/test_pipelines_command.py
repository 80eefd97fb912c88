"""The command line's flags on pictures and filters, together on a corner of the sample, and actions on a build."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from builds import run, write_corner

from mmc4_builder.funnel import Funnel
from mmc4_builder.sample.web import build as sample_web
from mmc4_builder.workspace import read_rows

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few dozen pages, three lists, and a build that minds them all."""
    folder = tmp_path_factory.mktemp("command")
    write_corner(folder / "crawl")
    pages = sample_web().documents[::8]
    shown = [m.url for page in pages for m in page.truth.mentions if page.truth.verdict == m.verdict == "kept"]
    (folder / "opt-out.txt").write_text(f"# asked to be left out\n{shown[0]}\n{pages[5].truth.url}\n")
    (folder / "ads.txt").write_text(f"! a list\n||{shown[1].split('/')[2]}/{'/'.join(shown[1].split('/')[3:])}^\n")
    (folder / "held_out").mkdir()
    archive = {picture.url: picture for picture in sample_web().pictures}
    from mmc4_builder.sample.pictures import payload

    (folder / "held_out/coco.jpg").write_bytes(payload(archive[shown[2]]))
    (folder / "shown.json").write_text(json.dumps(shown))
    run("--input", folder / "crawl/*.warc.gz", *flags(folder), "--output", folder / "out")
    return folder


def flags(folder: Path) -> list[str]:
    lists = ["--opt-out", str(folder / "opt-out.txt"), "--ad-list", str(folder / "ads.txt")]
    return [
        *lists,
        *("--decontaminate", str(folder / "held_out"), "--near-text"),
        *("--images", "archive", "--config", "sample", "--workers", "1"),
    ]


def reasons(folder: Path) -> dict[str, Counter[str | None]]:
    """Why each picture went, by its URL."""
    found: dict[str, Counter[str | None]] = {}
    for path in sorted((folder / "out/interleave").glob("*.parquet")):
        for row in read_rows(str(path)):
            for image in row["images"]:
                found.setdefault(image["url"], Counter())[image["reason"]] += 1
    return found


def test_lists_are_minded(corner: Path) -> None:
    first, second, third = json.loads((corner / "shown.json").read_text())[:3]
    found = reasons(corner)
    assert set(found[first]) == {"optout_list"}
    assert set(found[second]) == {"ad_network"}
    assert set(found[third]) == {"evaluation_image"}


def test_every_stage_adds_up_and_text_was_compared(corner: Path) -> None:
    Funnel.from_json((corner / "out/funnel.json").read_text())  # it would raise
    assert len(list((corner / "out/commits/near_text").iterdir())) == len(
        list((corner / "out/commits/heads").iterdir())
    )


def test_another_list_of_opt_outs_decides_anew_and_stores_nothing_anew(corner: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (corner / "out/images").iterdir()}
    (corner / "opt-out.txt").write_text("harbournotes.example\n")
    refused = run("--input", corner / "crawl/*.warc.gz", *flags(corner), "--output", corner / "out", code=1)
    assert "optout_keys" in refused.stderr
    done = run("--input", corner / "crawl/*.warc.gz", *flags(corner), "--output", corner / "out", "--reconfigure")
    assert "ran interleave, shards." in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (corner / "out/images").iterdir()} == before
    hosts = {row["host"] for row in pq.read_table(corner / "out/optout.parquet").to_pylist()
             if row["reason"] == "optout_list"}  # fmt: skip
    assert hosts and all(host.endswith("harbournotes.example") for host in hosts)


def test_a_build_is_found_again_by_its_folder(corner: Path) -> None:
    """No crawl is named: build.json says all that is needed."""
    done = run("--retry-failed", "--output", corner / "out")
    assert "nothing failed in a way that may pass" in done.stderr
    assert "nothing to do" in done.stdout


def test_addresses_for_img2dataset(corner: Path) -> None:
    done = run("--url-list", corner / "urls", "--output", corner / "out")
    listed = [row["url"] for path in sorted((corner / "urls").glob("*.parquet")) for row in read_rows(str(path))]
    assert f"{len(listed):,} URLs" in done.stdout
    assert listed and len(set(listed)) == len(listed)
    assert not any("harbournotes.example" in url or "/img/private/" in url for url in listed)


def test_faces_need_a_model(corner: Path, tmp_path: Path) -> None:
    said = run("--input", corner / "crawl/*.warc.gz", "--clip", "tiny", "--config", "mmc4_ff", "--images", "archive",
               "--output", tmp_path / "out", code=2).stderr  # fmt: skip
    assert "--fit-faces" in said
