"""Units of work on Beam: done once, committed, and handed on by address."""

from functools import partial
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.metrics import MetricsFilter

from mmc4_builder.workspace import Unit, Workspace, partition
from pipelines.launch import Engine
from pipelines.units import Exchange, Run, Step, units

NUMBERS = pa.schema([("key", pa.uint64())])


def send(unit: Unit, workspace: Workspace, *, ran: Path) -> None:
    """Leaves 0..9 for two buckets of three; notes that it ran."""
    (ran / unit.name).touch(exist_ok=False)
    keys = [k for k in range(10) if k % 3 != 2]
    workspace.leave("numbers", partition(pa.table([keys], schema=NUMBERS), "key", 3))
    workspace.tally("numbers", None, len(keys))


def add(unit: Unit, workspace: Workspace) -> None:
    total = sum(workspace.received("numbers", NUMBERS)["key"].to_pylist())
    with workspace.create(f"sums/{unit.name}") as stream:
        stream.write(str(total).encode())


def run(root: Path, ran: Path, workers: int = 1) -> dict[str, int]:
    """The pipeline send -> exchange -> add; Beam's own counters of it."""
    step = partial(Step, root=str(root), fingerprint="f")
    pipeline = Engine(workers=workers).pipeline()
    (
        pipeline
        | beam.Create(units(4))
        | Run(step(name="send", run=partial(send, ran=ran)))
        | Exchange(("numbers",), units(3))
        | Run(step(name="add", run=add))
    )
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_namespace("send"))["counters"]
    return {counter.key.metric.name: counter.committed for counter in counters}


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    (tmp_path / "ran").mkdir()
    return tmp_path / "ran"


def sums(root: Path) -> list[str]:
    return [path.read_text() for path in sorted((root / "sums").iterdir())]


def test_every_destination_gets_its_rows_and_one_gets_none(tmp_path: Path, ran: Path) -> None:
    assert run(tmp_path, ran) == {"numbers.entered": 28, "numbers.kept": 28}
    assert sums(tmp_path) == [str(4 * (0 + 3 + 6 + 9)), str(4 * (1 + 4 + 7)), "0"]


def test_committed_units_are_not_done_again(tmp_path: Path, ran: Path) -> None:
    run(tmp_path, ran)
    (ran / "00002").unlink()
    (tmp_path / "commits/send/00002.json").unlink()
    (tmp_path / "sums/00001").unlink()
    assert run(tmp_path, ran) == {
        "numbers.entered": 7,
        "numbers.kept": 7,
    }  # touch() fails if another runs twice
    assert sums(tmp_path) == ["72", "48", "0"]
