"""Progress of one stage on stderr: one line redrawn on a terminal, a few plain lines in a log."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

BAR_CELLS = 20
LOG_SECONDS = 30.0  # in a log, at most one line in so many seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Where a stage stands. Resumed units were done by an earlier run: they say nothing about speed."""

    stage: str
    total: int  # work units planned
    done: int  # work units committed, the resumed ones included
    resumed: int = 0
    counts: tuple[tuple[str, int], ...] = ()  # what this run has done: (("pages", 1200), ("images", 3400))
    seconds: float = 0.0  # since this run of the stage began


def render(snapshot: Snapshot, width: int = 0) -> str:
    """One line of ASCII. With a `width`, the bar and then the line's end give way to it."""
    parts = [f"{snapshot.stage}:", f"{snapshot.done:,}/{snapshot.total:,} units", _percent(snapshot)]
    if snapshot.resumed:
        parts.append(f"({snapshot.resumed:,} resumed)")
    parts += [_rate(name, count, snapshot.seconds) for name, count in snapshot.counts]
    parts += [f"ETA {_eta(snapshot)}", f"elapsed {clock_time(snapshot.seconds)}"]
    line = "  ".join(parts)
    barred = "  ".join([parts[0], _bar(snapshot), *parts[1:]])
    if not width:
        return line
    return barred if len(barred) <= width else line[:width]


def clock_time(seconds: float) -> str:
    """Seconds as people say them: 42s, 3m05s, 2h07m, 3d04h."""
    whole = max(0, int(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02}h"
    if hours:
        return f"{hours}h{minute:02}m"
    return f"{minutes}m{second:02}s" if minutes else f"{second}s"


def eta_seconds(total: int, done: int, resumed: int, seconds: float) -> float | None:
    """From this run's units alone: resumed ones took no time. None where there is nothing to tell it from."""
    left, fresh = total - done, done - resumed
    if left <= 0:
        return 0.0
    return left * seconds / fresh if fresh > 0 else None


class Progress:
    """Shows a stage's progress: `update` it as often as you like, `close` it or use it in a `with`.

    `resumed` units were committed before this run; `resumed_counts` are their counts. `update` gets the
    totals as the commit records hold them, those of resumed units included.
    """

    def __init__(
        self,
        stage: str,
        total_units: int,
        stream: TextIO | None = None,
        *,
        resumed: int = 0,
        resumed_counts: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stage = stage
        self._total = total_units
        self._stream: TextIO | None = stream or sys.stderr
        self._terminal = bool(self._stream and self._stream.isatty())
        self._resumed = resumed
        self._before = dict(resumed_counts or {})
        self._clock = clock
        self._started = clock()
        self._logged_at: float | None = None
        self._drawn = 0  # characters of the line that stands on the terminal
        self._last = self._snapshot(resumed, self._before)

    def update(self, done: int, counts: Mapping[str, int]) -> None:
        """Show that `done` units are committed, and what they hold in all."""
        self._last = self._snapshot(done, counts)
        if self._terminal:
            self._redraw()
        elif self._logged_at is None or self._clock() - self._logged_at >= LOG_SECONDS:
            self._log()

    def note(self, text: str) -> None:
        """Say something that stays, on a line of its own."""
        if self._terminal:
            self._write("\r" + " " * self._drawn + "\r")
            self._drawn = 0
        self._write(text + "\n")

    def close(self) -> None:
        """The stage has ended, well or not: leave its last state on a line of its own."""
        if self._terminal:
            self._redraw()
            self._write("\n")
        else:
            self._log()
        self._stream = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _snapshot(self, done: int, counts: Mapping[str, int]) -> Snapshot:
        return Snapshot(
            stage=self._stage,
            total=self._total,
            done=done,
            resumed=self._resumed,
            counts=tuple((name, max(0, count - self._before.get(name, 0))) for name, count in counts.items()),
            seconds=self._clock() - self._started,
        )

    def _redraw(self) -> None:
        line = render(self._last, _columns(self._stream) - 1)  # the last column would wrap the cursor
        self._write("\r" + line.ljust(self._drawn))
        self._drawn = len(line)

    def _log(self) -> None:
        self._logged_at = self._clock()
        self._write(render(self._last) + "\n")

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None  # nobody reads stderr any more; the build must not die of that


def _percent(snapshot: Snapshot) -> str:
    return f"{100 * snapshot.done // snapshot.total}%" if snapshot.total else "100%"


def _bar(snapshot: Snapshot) -> str:
    filled = BAR_CELLS * snapshot.done // snapshot.total if snapshot.total else BAR_CELLS
    return f"[{'#' * min(filled, BAR_CELLS):.<{BAR_CELLS}}]"


def _rate(name: str, count: int, seconds: float) -> str:
    if seconds <= 0:
        return f"- {name}/s"
    rate = count / seconds
    return f"{rate:,.0f} {name}/s" if rate >= 10 else f"{rate:.1f} {name}/s"


def _eta(snapshot: Snapshot) -> str:
    seconds = eta_seconds(snapshot.total, snapshot.done, snapshot.resumed, snapshot.seconds)
    return "-" if seconds is None else clock_time(seconds)


def _columns(stream: TextIO | None) -> int:
    """Width of the stream's own terminal: stdout may be a file while stderr is a screen."""
    try:
        return (os.get_terminal_size(stream.fileno()).columns if stream else 0) or 80
    except (OSError, ValueError):
        return 80
