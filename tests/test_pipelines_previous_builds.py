"""Crawl after crawl by the command line: two builds of the sample's halves, and one of both."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builds import run as command
from small_crawls import rows, write_halves

from mmc4_builder.funnel import Funnel
from mmc4_builder.mmc4_format import read_docs_zip
from mmc4_builder.validate import format_report, validate

pytestmark = pytest.mark.timeout(1200)  # whole builds, on a machine that may have other things to do


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is built of two crawls."""
    folder = tmp_path_factory.mktemp("halves")
    write_halves(folder)
    flags = ("--images", "archive", "--clip", "tiny", "--config", "sample", "--workers", 1)
    command(*flags, "--input", folder / "0.warc.gz", "--output", folder / "a")
    command(*flags, "--input", folder / "1.warc.gz", "--output", folder / "b", "--previous", folder / "a")
    command(*flags, "--input", folder / "0.warc.gz", folder / "1.warc.gz", "--output", folder / "union")
    return folder


def interleaved(*roots: Path) -> dict[str, Any]:
    """url -> text, pictures with their sentences, and similarities, of all documents."""
    found = {}
    for path in (path for root in roots for path in sorted((root / "docs").iterdir())):
        for doc in read_docs_zip(path):
            shown = [(one["image_name"], one["matched_text_index"]) for one in doc["image_info"]]
            assert doc["url"] not in found
            found[doc["url"]] = (doc["text_list"], shown, np.asarray(doc["similarity_matrix"]))
    return found


def test_two_builds_write_the_documents_of_one(halves: Path) -> None:
    apart, together = interleaved(halves / "a", halves / "b"), interleaved(halves / "union")
    assert apart.keys() == together.keys() and len(apart) > 10
    for address, (text, shown, matrix) in together.items():
        assert (text, shown) == apart[address][:2]
        np.testing.assert_allclose(matrix, apart[address][2], atol=1e-5)


def test_the_later_build_is_whole_and_says_what_it_adds_to(halves: Path) -> None:
    root = halves / "b"
    assert (found := validate(root, min_similarity=0.15)).ok, format_report(found)
    assert str(halves / "a") in (root / "report.html").read_text()
    described = json.loads((root / "build.json").read_text())
    assert [build["root"] for build in described["config"]["previous"]["builds"]] == [str(halves / "a")]
    steps = {step.unit: step for step in Funnel.from_json((root / "funnel.json").read_text()).steps}
    assert steps["previous"].entered == steps["previous"].kept > 0


def test_the_later_build_stands_without_the_earlier_one(halves: Path, tmp_path: Path) -> None:
    """Its own documents and pictures can be removed when the other has gone elsewhere."""
    shutil.copytree(halves / "b", tmp_path / "b")
    described = (tmp_path / "b/build.json").read_text()
    (tmp_path / "b/build.json").write_text(described.replace(str(halves / "a"), str(tmp_path / "nowhere")))
    (row, *_) = (row for row in rows(tmp_path / "b", "images") if row["sha256"])
    (tmp_path / "list.txt").write_text(row["sha256"])
    told = command("--remove", tmp_path / "list.txt", "--output", tmp_path / "b", "--workers", 1)
    assert "1 stored pictures" in told.stdout
