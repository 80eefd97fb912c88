"""Notes of times: there when all goes well, harmless when nothing can be written, added up exactly."""

import json
from pathlib import Path

import pytest

from mmc4_builder import timings
from mmc4_builder.commits import Commit, Output
from mmc4_builder.timing_sums import HostTime, stage_time, times
from mmc4_builder.timings import Run, Timing

COMMIT = Commit(
    step="images",
    unit="00001",
    fingerprint="f",
    outputs=(Output(path="a", size=7, sha256=""), Output(path="b", size=5, sha256="")),
    counts={"bytes": 100, "ranges.bytes": 11, "ranges.wanted_bytes": 9, "urls.kept": 3},
)


def timing(unit: str, seconds: float, step: str = "images") -> Timing:
    return Timing(
        step=step, unit=unit, began=1.0, wall_seconds=seconds, cpu_seconds=seconds / 2, thread_cpu_seconds=0.1,
        bytes_received=1, bytes_fetched=2, bytes_out=3,
    )  # fmt: skip


def test_a_unit_is_at_work_and_then_timed(tmp_path: Path) -> None:
    root = str(tmp_path)
    with timings.attempt(root, "images", "00001", "h/1/2") as clock:
        (at_work,) = timings.attempts(root)
        assert timings.read_note(f"{root}/{at_work.path}")["by"] == "h/1/2"
        clock.received, clock.commit = 40, COMMIT
    assert (at_work.step, at_work.unit, at_work.failed) == ("images", "00001", False)
    assert timings.attempts(root) == []
    found = timings.load(root, "images", "00001")
    assert found is not None and found.wall_seconds >= 0
    assert (found.bytes_received, found.bytes_fetched, found.bytes_out) == (40, 111, 12)
    assert "by" not in json.loads((tmp_path / "timings/images/00001.json").read_text())


def test_a_unit_that_raises_leaves_a_failed_attempt(tmp_path: Path) -> None:
    with pytest.raises(LookupError), timings.attempt(str(tmp_path), "images", "00001"):
        raise LookupError("x" * 1000)
    (failed,) = timings.attempts(str(tmp_path))
    assert failed.failed
    assert timings.read_note(f"{tmp_path}/{failed.path}")["error"].startswith("LookupError: xxx")
    assert timings.load(str(tmp_path), "images", "00001") is None


@pytest.mark.filterwarnings("default")
def test_a_place_that_cannot_be_written_fails_no_unit(tmp_path: Path) -> None:
    (tmp_path / "running").write_bytes(b"a file")
    (tmp_path / "timings").write_bytes(b"a file")
    with timings.attempt(str(tmp_path), "images", "00001") as clock:
        clock.commit = COMMIT
    assert timings.load(str(tmp_path), "images", "00001") is None


def test_a_root_that_has_vanished_does_not_come_back(tmp_path: Path) -> None:
    with timings.attempt(f"{tmp_path}/gone", "images", "00001") as clock:
        clock.commit = COMMIT
    timings.note_run(
        f"{tmp_path}/gone", "images", Run(began=0.0, seconds=1.0, units=1, resumed=0, retries=0, state="failed")
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"step": "images"}', b'{"other": 1}', b"\xff"])
def test_half_a_note_is_none(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "timings/images/00001.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(damage)
    assert timings.load_all(str(tmp_path), "images", ["00000", "00001"]) == []


def test_hosts_are_bounded_and_a_retry_adds_to_them(tmp_path: Path) -> None:
    many = {f"{n:04d}.example": (10, n % 7, float(n)) for n in range(1000)}
    timings.note_hosts(str(tmp_path), "images", "00000", many)
    timings.note_hosts(str(tmp_path), "retry", "00000", {"0999.example": (1, 1, 0.5)})
    timings.note_hosts(str(tmp_path), "images", "00001", {})
    found = timings.load_hosts(str(tmp_path))
    assert len(found) <= 2 * timings.MAX_HOSTS
    assert found["0999.example"] == (11, 999 % 7 + 1, 999.5)
    assert sorted(path.name for path in (tmp_path / "timings/hosts").iterdir()) == [
        "images.00000.json",
        "retry.00000.json",
    ]


def test_runs_are_kept_in_order(tmp_path: Path) -> None:
    runs = [Run(began=float(n), seconds=1.0, units=1, resumed=n, retries=0, state="done") for n in range(3)]
    for run in runs:
        timings.note_run(str(tmp_path), "images", run)
    assert timings.load_runs(str(tmp_path), "images") == runs
    assert timings.load_runs(str(tmp_path), "scores") == []


def test_a_stage_adds_up() -> None:
    runs = [Run(began=0.0, seconds=2.5, units=1, resumed=0, retries=2, state="failed")] * 2
    found = stage_time("images", runs, [("images", 4, [timing("1", 3.0), timing("2", 1.0), timing("3", 8.0)]),
                                        ("mention", 2, [])])  # fmt: skip
    first, second = found.steps
    assert (found.runs, found.wall_seconds, found.retries, found.units, found.timed) == (2, 5.0, 4, 6, 3)
    assert (first.wall_seconds, first.cpu_seconds, first.median_seconds, first.longest_seconds) == (12.0, 6.0, 3.0, 8.0)
    assert (first.bytes_received, first.bytes_fetched, first.bytes_out) == (3, 6, 9)
    assert (second.timed, second.median_seconds, second.longest_seconds) == (0, 0.0, 0.0)
    assert [one.unit for one in found.slowest] == ["3", "1", "2"]


def test_the_worst_hosts_come_first_and_equal_ones_by_name() -> None:
    hosts = {"b": (3, 1, 2.0), "a": (3, 1, 2.0), "c": (9, 0, 5.0), "d": (1, 1, 0.0), "e": (4, 3, 0.1)}
    found = times([stage_time("images", [], [])], hosts)
    assert found.stages == ()  # nothing is known of it
    assert [one.host for one in found.slowest_hosts] == ["c", "a", "b", "e"]
    assert [one.host for one in found.failing_hosts] == ["e", "a", "b", "d"]
    assert found.failing_hosts[0] == HostTime(host="e", urls=4, failed=3, seconds=0.1)
    assert json.loads(found.to_json())["slowest_hosts"][0]["host"] == "c"
