"""Commit records: what they hold, when they count, and that files appear whole or not at all."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mmc4_builder import commits, storage
from mmc4_builder.commits import Commit, Output, Piece


@dataclass(frozen=True)
class Config:
    threshold: float = 0.15


def written(root: Path, **changes: object) -> Commit:
    """A commit with one real output."""
    storage.write(f"{root}/docs/a.zip", b"abc")
    commit = Commit(
        step="interleave",
        unit="00001",
        fingerprint="f",
        outputs=(Output(path="docs/a.zip", size=3, sha256="x"),),
        counts={"documents.kept": 2},
        pieces={"00000": (Piece(exchange="urls", source="00001", offset=0, length=9),)},
    )
    commit = replace(commit, **changes)
    commits.write(str(root), commit)
    return commit


def test_json_round_trip(tmp_path: Path) -> None:
    commit = written(tmp_path)
    assert commits.from_json(commits.to_json(commit)) == commit


def test_found_where_everything_agrees(tmp_path: Path) -> None:
    commit = written(tmp_path)
    assert commits.find(str(tmp_path), "interleave", "00001", "f") == commit
    assert commits.done(str(tmp_path), "interleave") == ["00001"]


def test_not_found_for_another_configuration(tmp_path: Path) -> None:
    written(tmp_path)
    assert commits.find(str(tmp_path), "interleave", "00001", "g") is None


@pytest.mark.parametrize("damage", [b"", b"ab", b"abcd"])
def test_not_found_where_an_output_changed_its_size(tmp_path: Path, damage: bytes) -> None:
    written(tmp_path)
    (tmp_path / "docs/a.zip").write_bytes(damage)
    assert commits.find(str(tmp_path), "interleave", "00001", "f") is None


def test_not_found_where_an_output_is_gone(tmp_path: Path) -> None:
    written(tmp_path)
    storage.remove(f"{tmp_path}/docs/a.zip")
    assert commits.find(str(tmp_path), "interleave", "00001", "f") is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'"x"', b'{"step": "interleave"}', b"\xff"])
def test_a_damaged_record_is_no_record(tmp_path: Path, damage: bytes) -> None:
    written(tmp_path)
    Path(commits.path_of(str(tmp_path), "interleave", "00001")).write_bytes(damage)
    assert commits.find(str(tmp_path), "interleave", "00001", "f") is None


def test_counts_add_up(tmp_path: Path) -> None:
    commit = written(tmp_path)
    assert commits.total([commit, replace(commit, counts={"a": 1, "documents.kept": 3})]) == {
        "a": 1,
        "documents.kept": 5,
    }


@pytest.mark.parametrize(
    "other", [(Config(threshold=0.2), ["x"]), (Config(), ["y"]), (Config(), ["x", "x"]), (["x"], Config())]
)
def test_fingerprint_differs(other: tuple[object, ...]) -> None:
    assert commits.fingerprint(Config(), ["x"]) == commits.fingerprint(Config(), ["x"])
    assert commits.fingerprint(Config(), ["x"]) != commits.fingerprint(*other)


def test_fingerprint_refuses_what_has_no_fixed_form() -> None:
    with pytest.raises(TypeError, match="fingerprint"):
        commits.fingerprint(object())


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    storage.write(f"{tmp_path}/a", b"old")
    with pytest.raises(RuntimeError), storage.write_atomic(f"{tmp_path}/a") as stream:
        stream.write(b"new")
        raise RuntimeError
    assert storage.read(f"{tmp_path}/a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_a_clear_error() -> None:
    with pytest.raises(storage.StorageError, match="make room"), storage.write_atomic("/dev/full/x"):
        pass


def test_sweep_removes_only_what_a_killed_run_left(tmp_path: Path) -> None:
    storage.write(f"{tmp_path}/docs/a.zip", b"abc")
    (tmp_path / "docs/.a.zip.0123.tmp").write_bytes(b"half")
    (tmp_path / "docs/.hidden").write_bytes(b"not ours")
    assert storage.sweep(str(tmp_path)) == 1
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == [".hidden", "a.zip"]


def test_record_is_plain_json(tmp_path: Path) -> None:
    written(tmp_path)
    record = json.loads(Path(commits.path_of(str(tmp_path), "interleave", "00001")).read_bytes())
    assert record["counts"] == {"documents.kept": 2}
