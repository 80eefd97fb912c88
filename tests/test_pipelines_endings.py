"""A launcher that must end takes along what runs for it: the engine's job, the job server, local workers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from builds import COMMAND, ROOT, environment, write_corner

from mmc4_builder.storage import StorageError
from pipelines import endings, job_server, launch
from pipelines.lock import NAME as LOCK

START_SECONDS = 60.0
SERVER = ROOT / "tests/endless_jobs.py"
INTERRUPTED = "mmc4-build: interrupted; the same command goes on from here\n"


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = write_corner(tmp_path_factory.mktemp("corner"), files=1, every=40)
    return path


def start(folder: Path, corner: Path, mood: str) -> "subprocess.Popen[str]":
    """The command with a job server of ours, as a terminal starts it: in a group of processes of its own."""
    program, jar = folder / "java", folder / "server.jar"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{SERVER}" "{folder / "log"}" {mood} "$@"\n')
    program.chmod(0o755)
    jar.write_bytes(b"")
    build = ["--input", corner, "--images", "archive", "--clip", "tiny", "--output", folder / "out"]
    engine = ["--runner=SparkRunner", f"--spark_job_server_jar={jar}"]
    server = [f"--job_server_java_launcher={program}", "--environment_type=PROCESS"]
    words = [*COMMAND, *map(str, [*build, *engine, *server])]
    # Workers of pytest-xdist ignore SIGINT, and what they start inherits it; nobody's terminal does.
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen(
        words, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed
    )


def until_noted(folder: Path, line: str, process: "subprocess.Popen[str]") -> None:
    """Wait until the job server has said something."""
    deadline = time.monotonic() + START_SECONDS
    while not ((folder / "log").exists() and line in (folder / "log").read_text()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended(number: signal.Signals, folder: Path, corner: Path, *, mood: str, once: str) -> str:
    """What a launcher says whose processes all get a signal, as Ctrl-C is one. It leaves no job server, and no lock."""
    process = start(folder, corner, mood)
    until_noted(folder, once, process)
    assert (folder / "out" / LOCK).exists()
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert INTERRUPTED in said
    server = (folder / "log").read_text().split()[1]
    assert not Path("/proc", server).exists()
    assert not (folder / "out" / LOCK).exists()
    return said


def test_a_signal_cancels_the_job_and_then_stops_the_job_server(corner: Path, tmp_path: Path) -> None:
    assert "no answer" not in ended(signal.SIGINT, tmp_path, corner, mood="well", once="runs")
    assert (tmp_path / "log").read_text().splitlines()[1:] == ["runs", "cancelled"]


def test_a_job_server_that_does_not_answer_is_told_of_and_stopped(corner: Path, tmp_path: Path) -> None:
    assert "no answer from the engine" in ended(signal.SIGINT, tmp_path, corner, mood="mute", once="runs")


def test_a_signal_while_the_job_server_starts_leaves_none(corner: Path, tmp_path: Path) -> None:
    assert "no answer" not in ended(signal.SIGTERM, tmp_path, corner, mood="slow", once="started")


def test_a_launcher_that_fails_ends_the_job_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock is released then, and others may write."""
    ended: list[str] = []
    monkeypatch.setattr(launch, "cancel", lambda: ended.append("job"))
    monkeypatch.setattr(job_server, "stop", lambda: ended.append("server"))
    with pytest.raises(StorageError), endings.nothing_left_running():
        raise StorageError("cannot list it")
    assert ended == ["job", "server"]


@pytest.mark.parametrize(
    ("calls", "made"),
    [
        ((lambda: None, lambda: None), True),
        ((lambda: None, lambda: 1 / 0), False),
        ((lambda: None, lambda: time.sleep(2)), False),
    ],
)
def test_nobody_is_waited_for_too_long(
    calls: tuple[Callable[[], None], ...], made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endings, "PATIENCE_SECONDS", 0.3)
    assert endings.in_time(*calls) == made
