"""Relative paths among the flags, for workers that start elsewhere."""

from pathlib import Path

import pytest

from mmc4_builder.cli import parser
from pipelines.shared_paths import make_absolute


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.pt").touch()
    (tmp_path / "faces.json").touch()
    words = ["--input", "a/*.gz", "s3://b/c.gz", "--output", "out/", "--clip", "ViT-L-14:clip.pt", "--faces=faces.json"]
    args = parser().parse_args(words)
    make_absolute(args)
    assert args.input == [f"{tmp_path}/a/*.gz", "s3://b/c.gz"]
    assert args.output == f"{tmp_path}/out"
    assert args.clip == f"ViT-L-14:{tmp_path}/clip.pt"
    assert args.faces == f"{tmp_path}/faces.json"


def test_words_and_urls_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    args = parser().parse_args(["--crawl", "sample", "--output", "gs://b/x", "--clip", "tiny", "--nsfw", "tiny"])
    before = vars(args).copy()
    make_absolute(args)
    assert vars(args) == before
