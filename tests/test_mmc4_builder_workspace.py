"""Workspaces: files that are checksummed on the way, and rows that reach the units they are left for."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from mmc4_builder import commits, storage
from mmc4_builder.workspace import Unit, Workspace, partition, read_rows

ROWS = pa.schema([("key", pa.uint64()), ("name", pa.string())])


def table(keys: list[int], name: str) -> pa.Table:
    return pa.table([keys, [f"{name}{key}" for key in keys]], schema=ROWS)


def test_outputs_are_sized_and_hashed(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path), "step", Unit(name="00000"))
    with workspace.create("a/b.bin") as stream:
        stream.write(b"abc")
    (output,) = workspace.commit("f").outputs
    assert (output.path, output.size) == ("a/b.bin", 3)
    assert output.sha256 == hashlib.sha256(b"abc").hexdigest()
    assert (tmp_path / "a/b.bin").read_bytes() == b"abc"


def test_parquet_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    for place in ("one", "two"):
        workspace = Workspace(str(tmp_path / place), "step", Unit(name="00000"))
        with workspace.parquet("rows.parquet", ROWS) as rows:
            rows.extend({"key": i, "name": str(i)} for i in range(1200))
    one, two = (tmp_path / place / "rows.parquet" for place in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert [row["key"] for row in read_rows(str(one))] == list(range(1200))


@pytest.mark.parametrize("keys", [[], [5], [0, 1, 2, 3, 4, 5, 4, 3], [2**64 - 1, 2**63, 7]])
@pytest.mark.parametrize("units", [1, 3])
def test_partition_loses_nothing_and_keeps_order(keys: list[int], units: int) -> None:
    parts = partition(table(keys, "x"), "key", units)
    assert sorted(key for part in parts.values() for key in part["key"].to_pylist()) == sorted(keys)
    for name, part in parts.items():
        assert part["key"].to_pylist() == [key for key in keys if key % units == int(name)]


def test_rows_reach_their_destination_in_order_of_source(tmp_path: Path) -> None:
    pieces = []
    for source in ("00001", "00000"):
        workspace = Workspace(str(tmp_path), "send", Unit(name=source))
        workspace.leave("mail", partition(table([1, 2, 3], source), "key", 2))
        pieces += workspace.commit("f").pieces["00001"]
    receiver = Workspace(str(tmp_path), "get", Unit(name="00001", pieces=tuple(pieces)))
    expected = ["000001", "000003", "000011", "000013"]
    assert receiver.received("mail", ROWS)["name"].to_pylist() == expected
    assert receiver.received("other mail", ROWS).num_rows == 0


def test_dead_letters_are_counted_and_kept(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path), "extract", Unit(name="00000"))
    workspace.bury("records", "truncated", offset=7)
    workspace.tally("records", None)
    commit = workspace.commit("f")
    assert commit.counts == {"records.dropped.truncated": 1, "records.entered": 2, "records.kept": 1}
    letters = (tmp_path / "dead_letters/extract/00000.jsonl").read_text()
    assert letters == '{"what": "records", "reason": "truncated", "offset": 7}\n'


def test_commit_records_are_the_same_each_time(tmp_path: Path) -> None:
    records = []
    for place in ("one", "two"):
        workspace = Workspace(str(tmp_path / place), "send", Unit(name="00000"))
        workspace.leave("mail", partition(table([3, 1, 2], "x"), "key", 2))
        records.append(workspace.commit("f"))
    assert commits.to_json(records[0]) == commits.to_json(replace(records[1]))


def test_every_file_is_walked(tmp_path: Path) -> None:
    for name in ("b/c/1.json", "a.html", "b/.x.tmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert storage.walk(str(tmp_path)) == ["a.html", "b/.x.tmp", "b/c/1.json"]
