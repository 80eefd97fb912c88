"""Progress: one line on a terminal, few lines in a log, and speeds that resumed work does not flatter."""

import io
import os
import pty
from collections.abc import Callable

import pytest

from mmc4_builder.progress import LOG_SECONDS, Progress, Snapshot, clock_time, render


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


HALF = Snapshot(
    stage="images",
    total=200,
    done=112,
    resumed=12,
    counts=(("pages", 12_000), ("images", 30)),
    seconds=50.0,
)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0s"),
        (0.9, "0s"),
        (42, "42s"),
        (185, "3m05s"),
        (7_620, "2h07m"),
        (3 * 86_400 + 4 * 3_600, "3d04h"),
    ],
)
def test_clock_time(seconds: float, expected: str) -> None:
    assert clock_time(seconds) == expected


def test_line_of_a_log() -> None:
    assert render(HALF) == (
        "images:  112/200 units  56%  (12 resumed)  240 pages/s  0.6 images/s  ETA 44s  elapsed 50s"
    )


def test_line_of_a_wide_terminal_has_a_bar() -> None:
    line = render(HALF, 200)
    assert line.startswith("images:  [###########.........]  112/200 units  56%")


@pytest.mark.parametrize("width", [1, 40, 80, 99])
def test_line_never_wraps(width: int) -> None:
    assert len(render(HALF, width)) <= width


@pytest.mark.parametrize(
    ("snapshot", "expected"),
    [
        (Snapshot(stage="s", total=0, done=0), "s:  0/0 units  100%  ETA 0s  elapsed 0s"),
        (Snapshot(stage="s", total=3, done=0, seconds=5), "s:  0/3 units  0%  ETA -  elapsed 5s"),
        # resumed units say nothing about the speed of this run
        (
            Snapshot(stage="s", total=3, done=2, resumed=2, seconds=5),
            "s:  2/3 units  66%  (2 resumed)  ETA -  elapsed 5s",
        ),
        (Snapshot(stage="s", total=1, done=1, seconds=61), "s:  1/1 units  100%  ETA 0s  elapsed 1m01s"),
        (
            Snapshot(stage="s", total=1, done=0, counts=(("pages", 0),)),
            "s:  0/1 units  0%  - pages/s  ETA -  elapsed 0s",
        ),
    ],
)
def test_edges(snapshot: Snapshot, expected: str) -> None:
    assert render(snapshot) == expected


def test_a_log_gets_few_lines_and_the_last_state() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress("images", 100, stream, clock=clock) as progress:
        for done in range(100):
            progress.update(done, {"images": done})
            clock.now += 1.0
        progress.update(100, {"images": 100})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 100 // int(LOG_SECONDS) + 2
    assert lines[0].startswith("images:  0/100 units")
    assert lines[-1] == "images:  100/100 units  100%  1.0 images/s  ETA 0s  elapsed 1m40s"
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_one_line_that_is_wiped_when_it_shrinks() -> None:
    clock, stream = Clock(), Terminal()
    with Progress("images", 3, stream, clock=clock) as progress:
        clock.now += 1
        progress.update(1, {"images": 123_456})
        clock.now += 1
        progress.update(2, {"images": 0})
    body, end = stream.getvalue()[:-1], stream.getvalue()[-1]
    _, first, second, last = body.split("\r")
    assert end == "\n" and "\n" not in body
    assert len(second) == len(first)  # blanks over what the longer line left
    assert last == second.rstrip()


def test_rates_leave_out_what_an_earlier_run_did() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress("documents", 10, stream, resumed=5, resumed_counts={"pages": 1_000_000}, clock=clock)
    clock.now += 10
    progress.update(6, {"pages": 1_000_200})
    assert stream.getvalue() == ("documents:  6/10 units  60%  (5 resumed)  20 pages/s  ETA 40s  elapsed 10s\n")


def test_closing_without_an_update_shows_what_was_resumed() -> None:
    stream = io.StringIO()
    Progress("documents", 5, stream, resumed=5, resumed_counts={"pages": 9}, clock=Clock()).close()
    assert stream.getvalue() == "documents:  5/5 units  100%  (5 resumed)  - pages/s  ETA 0s  elapsed 0s\n"


def _broken_pipe() -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def test_a_reader_that_went_away_does_not_stop_the_build() -> None:
    stream = _broken_pipe()
    with Progress("images", 2, stream, clock=Clock()) as progress:
        progress.update(1, {})
        progress.update(2, {})
    with pytest.raises(BrokenPipeError):
        stream.close()  # what was buffered still cannot be written: that is the stream's owner's to know


def test_a_real_terminal_is_asked_for_its_width() -> None:
    parent, child = pty.openpty()
    with os.fdopen(child, "w") as stream, Progress("images", 2, stream, clock=Clock()) as progress:
        progress.update(1, {"images": 10})
        shown = os.read(parent, 4096).decode()
    os.close(parent)
    assert shown.startswith("\rimages:  [####")
    assert len(shown) <= 80


@pytest.mark.parametrize("make", [io.StringIO, Terminal])
def test_an_exception_leaves_the_cursor_on_a_new_line(make: Callable[[], io.StringIO]) -> None:
    stream = make()
    with pytest.raises(KeyError), Progress("images", 2, stream, clock=Clock()) as progress:
        progress.update(1, {})
        raise KeyError
    assert stream.getvalue().endswith("\n")
    assert "1/2 units" in stream.getvalue()
