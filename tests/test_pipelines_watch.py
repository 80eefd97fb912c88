"""Watching a build: what it shows comes from what units leave, and a unit that hangs is named."""

import io
import json
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import apache_beam as beam
import pytest
from apache_beam.pvalue import PCollection
from builds import run, start, write_corner
from test_mmc4_builder_metrics import read

from mmc4_builder import commits, storage, timings
from mmc4_builder.commits import Commit, Output
from mmc4_builder.metrics import State
from mmc4_builder.stuck import Patience
from mmc4_builder.workspace import Unit, Workspace
from pipelines import launch, watch
from pipelines.config import ImagesConfig, sample
from pipelines.launch import Engine, EngineError
from pipelines.plan import Crawl, Plan, Stage, Work
from pipelines.remove import forget_times
from pipelines.units import Run, Step, units
from pipelines.watch import Watch, counted

IMPATIENT = Patience(times=0.0, seconds=0.3, unknown_seconds=0.3)


def work(unit: Unit, workspace: Workspace, *, fault: str, released: str) -> None:
    """Counts pages and writes a file; the unit `00001` may have a fault."""
    if unit.name == "00001" and fault == "hangs":
        while not os.path.exists(released):
            time.sleep(0.01)
    if unit.name == "00001" and fault == "raises":
        raise LookupError("nobody foresaw this")
    workspace.tally("records", None, 10)
    workspace.counts["bytes"] += 1000
    with workspace.create(f"files/{unit.name}") as stream:
        stream.write(b"abc")


@dataclass
class Working(beam.PTransform):
    root: str
    fault: str

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        doing = partial(work, fault=self.fault, released=f"{self.root}/released")
        step = Step(name="work", root=self.root, fingerprint="f", run=doing)
        done: PCollection[Commit] = pipeline | beam.Create(units(3)) | Run(step)
        return done


@dataclass
class Listening:
    """A sink that remembers, and lets a hanging unit go on once it was named."""

    root: Path
    states: list[State] = field(default_factory=list)

    def tell(self, state: State) -> None:
        self.states.append(state)
        if state.stuck:
            (self.root / "released").touch()


def stage(root: Path, fault: str = "") -> Stage:
    return Stage(name="images", transform=Working(str(root), fault), work=(Work("work", "f", units(3)),))


def follow(root: Path, fault: str, *, patience: Patience = IMPATIENT) -> tuple[list[State], str]:
    """Run the stage, with what it told of itself and its lines for people."""
    made, listening, stream = stage(root, fault), Listening(root), io.StringIO()
    done = made.work[0].committed(str(root))
    try:
        with watch.followed(str(root), made, done, stream, [listening], patience) as look:
            launch.run(made.transform, Engine(workers=1), look)
    except EngineError:
        pass
    return listening.states, stream.getvalue()


def test_a_stage_is_followed_to_its_end(tmp_path: Path) -> None:
    states, lines = follow(tmp_path, "")
    last = states[-1]
    assert (last.state, last.total, last.done, last.resumed, last.running, last.retries) == ("done", 3, 3, 0, 0, 0)
    assert last.counts == {"records": 30, "bytes_fetched": 3000, "bytes_written": 9}
    assert not last.stuck and last.eta_seconds == 0.0
    assert "3/3 units" in lines.splitlines()[-1]
    (kept,) = timings.load_runs(str(tmp_path), "images")
    assert (kept.units, kept.resumed, kept.state) == (3, 0, "done")
    assert len(timings.load_all(str(tmp_path), "work", [unit.name for unit in units(3)])) == 3
    assert timings.attempts(str(tmp_path)) == []


def test_a_unit_that_hangs_is_named(tmp_path: Path) -> None:
    states, lines = follow(tmp_path, "hangs")
    (named,) = next(state.stuck for state in states if state.stuck)
    assert named.unit == "work/00001" and named.seconds > 0.3
    assert lines.count("images: stuck: work/00001 at work for ") == 1
    assert states[-1].state == "done" and states[-1].stuck == ()


def test_a_unit_that_raises_is_a_retry_and_the_next_run_resumes(tmp_path: Path) -> None:
    states, _ = follow(tmp_path, "raises")
    assert states[-1].state == "failed" and states[-1].retries == 1
    assert states[-1].done < 3
    states, lines = follow(tmp_path, "")
    last = states[-1]
    assert states[0].resumed == last.resumed > 0
    assert last.done == 3 and last.rates()["records"] * last.seconds == pytest.approx(10 * (3 - last.resumed), rel=0.01)
    assert f"({last.resumed} resumed)" in lines
    assert [one.state for one in timings.load_runs(str(tmp_path), "images")] == ["failed", "done"]


def test_that_nothing_is_at_work_is_said_once(tmp_path: Path) -> None:
    made, listening, stream = stage(tmp_path), Listening(tmp_path), io.StringIO()
    with watch.followed(str(tmp_path), made, [], stream, [listening], Patience(seconds=0.0)) as look:
        for _ in range(3):
            time.sleep(0.01)
            look()
    assert stream.getvalue().count("no unit is at work: the engine waits for machines") == 1


def test_what_a_commit_counts() -> None:
    made = Commit(
        step="images",
        unit="0",
        fingerprint="",
        outputs=(Output(path="a", size=5, sha256=""),),
        counts={"urls.kept": 2, "urls.dropped.http_404": 9, "requests": 4, "ranges.requests": 3, "bytes": 8},
    )
    assert counted(made) == {"images": 2, "requests": 7, "bytes_fetched": 8, "bytes_written": 5}


def on_a_store(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let local folders stand for an object store; every listing is noted."""
    listed: list[str] = []

    def names(folder: str) -> list[str]:
        listed.append(folder)
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    monkeypatch.setattr(storage, "is_local", lambda path: False)
    monkeypatch.setattr(storage, "names", names)
    monkeypatch.setattr(storage, "read", lambda path: Path(path).read_bytes())
    return listed


def test_on_an_object_store_a_look_is_one_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ("extract", "judge", "documents")
    made = Stage(name="documents", transform=Working("", ""), work=tuple(Work(s, "f", units(2)) for s in steps))
    for step in steps:
        commits.write(str(tmp_path), Commit(step=step, unit="00000", fingerprint="f", counts={"records.entered": 1}))
    listed = on_a_store(monkeypatch)
    now = [0.0]
    watched = Watch(str(tmp_path), made, [], clock=lambda: now[0])
    done = []
    for _ in range(12):
        now[0] += 10.0
        before = len(listed)
        done.append(watched.look().done)
        assert len(listed) == before + 1
    assert done[-1] == 3 and done == sorted(done)
    assert {path.rsplit("/", 1)[1] for path in listed} == {"running", *steps}


def test_a_look_that_fails_is_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str) -> list[str]:
        raise storage.StorageError(f"cannot list {path}")

    watched = Watch(str(tmp_path), stage(tmp_path), [])
    with monkeypatch.context() as patch:
        patch.setattr(storage, "names", broken)
        assert watched.look().done == 0


def test_slow_looks_are_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = [0.0], list[float]()

    def slow(path: str) -> list[str]:
        looks.append(now[0])
        now[0] += 1.0
        return []

    monkeypatch.setattr(storage, "names", slow)
    watched = Watch(str(tmp_path), stage(tmp_path), [], clock=lambda: now[0])
    for _ in range(200):
        watched.look()
        now[0] += 0.5
    assert len(looks) * 1.0 < 0.2 * now[0]


def test_a_removal_forgets_which_hosts_there_were(tmp_path: Path) -> None:
    timings.note_hosts(str(tmp_path), "images", "00000", {"a.example": (1, 1, 1.0)})
    forget_times(
        Plan(build=sample(ImagesConfig(source="archive")), crawl=Crawl(name="c", root="", warcs=()), root=str(tmp_path))
    )
    assert timings.load_hosts(str(tmp_path)) == {}


# --- a real build -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Sequence[object]:
    corner = write_corner(tmp_path_factory.mktemp("corner"), files=2, every=24)
    return ["--input", *corner, "--images", "archive", "--clip", "tiny", "--config", "sample"]


@pytest.mark.timeout(400)
def test_a_real_build_is_told_of_by_lines_and_at_a_port(flags: Sequence[object], tmp_path: Path) -> None:
    told = ["--metrics", tmp_path / "m.jsonl", "--metrics-seconds", "0.2", "--metrics-port", "0"]
    build = [*flags, "--output", tmp_path / "out", "--workers", "2", "--stages", "documents,images"]
    process = start(*build, *told)
    assert process.stderr is not None
    address = process.stderr.readline().split()[-1]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", address)
    pages: list[str] = []
    while process.poll() is None and not (pages and read(pages[-1]).keys() > {"mmc4_stage_items_total"}):
        with suppress(URLError), urlopen(address, timeout=30) as answer:  # it may end just now
            pages.append(answer.read().decode())
        time.sleep(0.05)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert read(pages[-1])["mmc4_stage_units"][1]['stage="documents"'] == 14
    lines = [json.loads(text) for text in (tmp_path / "m.jsonl").read_text().splitlines()]
    ends = [(one["stage"], one["units"]["done"]) for one in lines if one["state"] != "running"]
    assert ends == [("documents", 14), ("images", 16)]
    counts = lines[-1]["counts"]
    assert counts["images"] > 10 and counts["bytes_fetched"] > 10_000 and counts["bytes_written"] > 10_000
    took = json.loads((tmp_path / "out/timing.json").read_text())
    assert [(one["stage"], one["runs"]) for one in took["stages"]] == [("documents", 1), ("images", 1)]
    assert all(step["timed"] == step["units"] for one in took["stages"] for step in one["steps"])
    again = run(*build, "--metrics", "-")
    lines = [json.loads(text) for text in again.stdout.splitlines()]
    assert [(one["state"], one["units"]["resumed"]) for one in lines] == [("done", 14), ("done", 16)]
    assert not any(rate for one in lines for rate in one["rates"].values())
    assert "nothing to do" in again.stderr
    assert not (tmp_path / "out/running").exists()
