"""Running a pipeline: errors that name their cause, on one worker and on several."""

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.pvalue import PCollection

from mmc4_builder import storage
from mmc4_builder.commits import Commit
from mmc4_builder.storage import StorageError
from mmc4_builder.transport import NotFound
from mmc4_builder.warc import WarcError
from mmc4_builder.workspace import Unit, Workspace
from pipelines import launch
from pipelines.launch import Engine, EngineError, explain
from pipelines.units import Run, Step, units

ROOT = Path(__file__).parents[1]
FULL = "cannot write /full/x: No space left on device. Make room, then run the same command again."
TRACEBACK = """Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1, in process
    ???
  File "/x/pipelines/units.py", line 36, in run_unit
    step.run(unit, workspace)
{cause}

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "apache_beam/runners/worker/sdk_worker.py", line 2, in _execute
    response = task()
{cause} [while running 'Images/images/Map(run_unit)']
"""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (StorageError(FULL), FULL),
        (StorageError(f"{FULL} [while running 'Documents/extract/Map(run_unit)']"), FULL),
        (NotFound("no such file: /x"), "no such file: /x"),
        (EngineError("a worker process died"), "a worker process died"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (RuntimeError("no cause is named here"), "RuntimeError: no cause is named here"),
        (RuntimeError(TRACEBACK.format(cause=f"mmc4_builder.storage.StorageError: {FULL}")), FULL),
        (
            RuntimeError(TRACEBACK.format(cause="pipelines.build.BuildError: wrong: all of it")),
            "wrong: all of it",
        ),
        (RuntimeError(TRACEBACK.format(cause="KeyError: 'x'")), "KeyError: 'x'"),
        (RuntimeError(TRACEBACK.format(cause="pyarrow.lib.ArrowInvalid: bad: x")), "ArrowInvalid: bad: x"),
        (ValueError(""), "ValueError: "),
    ],
)
def test_explain(error: BaseException, message: str) -> None:
    assert explain(error) == message


def fail(unit: Unit, workspace: Workspace, *, how: str) -> None:
    if how == "ours":
        raise StorageError(FULL)
    if how == "odd":  # Beam cannot make another one of it with a longer message
        raise WarcError("bad_url", "a.warc.gz", 5, "what is wrong")
    if how == "theirs":
        raise LookupError("nobody foresaw this")
    raise AssertionError  # without a word


@dataclass
class Failing(beam.PTransform):
    root: str
    how: str

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        step = Step(name="fail", root=self.root, fingerprint="f", run=partial(fail, how=self.how))
        done: PCollection[Commit] = pipeline | beam.Create(units(3)) | Run(step)
        return done


@pytest.mark.parametrize(
    ("how", "workers", "message"),
    [
        ("ours", 1, FULL),
        ("ours", 2, FULL),
        ("odd", 1, "bad_url at byte 5 of a.warc.gz: what is wrong"),
        ("theirs", 1, "LookupError: nobody foresaw this"),
        ("wordless", 1, "RuntimeError: AssertionError"),  # Beam's own wrapping
    ],
)
def test_a_failing_step_ends_the_run_with_its_cause(
    how: str, workers: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{folder.parent}")
    with pytest.raises(EngineError) as caught:
        launch.run(Failing(str(tmp_path), how), Engine(workers=workers), lambda: None)
    assert str(caught.value) == message
    assert caught.value.__cause__ is not None
    assert not list(tmp_path.glob("commits/**/*.json"))


def count(unit: Unit, workspace: Workspace) -> None:
    workspace.tally("units", None)


@dataclass
class Succeeding(beam.PTransform):
    root: str

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        step = Step(name="count", root=self.root, fingerprint="f", run=count)
        done: PCollection[Commit] = pipeline | beam.Create(units(3)) | Run(step)
        return done


def test_a_run_is_watched_to_its_end(tmp_path: Path) -> None:
    """The last look comes after the last commit."""
    seen: list[int] = []
    look = lambda: seen.append(len(storage.names(f"{tmp_path}/commits/count")))  # noqa: E731
    launch.run(Succeeding(str(tmp_path)), Engine(workers=1), look)
    assert seen[-1] == 3


def test_a_watcher_that_fails_ends_the_run(tmp_path: Path) -> None:
    """Such as Ctrl-C: it is raised where somebody sees it."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch.run(Succeeding(str(tmp_path)), Engine(workers=1), interrupted)


@pytest.mark.parametrize(("workers", "processes"), [(0, os.cpu_count()), (1, 1), (3, 3)])
def test_workers(workers: int, processes: int) -> None:
    pipeline = Engine(workers=workers).pipeline()
    assert pipeline.options.view_as(DirectOptions).direct_num_workers == processes


def test_options_of_beam_are_passed_on() -> None:
    pipeline = Engine(workers=1, options=("--job_name=mine",)).pipeline()
    assert pipeline.options.get_all_options()["job_name"] == "mine"
    assert Engine().is_local
    assert not Engine(runner="SparkRunner").is_local


def test_a_runner_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="Sparkrunnner"):
        launch.run(Succeeding(str(tmp_path)), Engine(runner="Sparkrunnner"), lambda: None)


def test_a_worker_whose_launcher_is_gone_already_ends() -> None:
    """Its parent is alive, but is not the launcher that it was started by, which must have died in between."""
    ended = subprocess.run([sys.executable, "-m", "pipelines.worker", str(os.getppid())], cwd=ROOT, timeout=60)
    assert ended.returncode == 1
