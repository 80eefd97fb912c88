"""What there is to know of a running stage, as one JSON line and as Prometheus' text.

Both are made of a `State`, which comes from commit records and from notes of what is at work (`timings.py`): they are
the same on every engine. The time is data here, so nothing of this is part of what a build publishes.

A line has `time` (UTC), `stage`, `state` (running; done or failed on the last line of a stage), `seconds` since this
run of the stage began, `units` (total, done, resumed, running), `counts` (of all units that are done: records,
documents, images, requests, bytes_fetched, bytes_written), `rates` (a second, of this run: resumed units took no time),
`eta_seconds` (null where nothing tells it), `idle_seconds` since anything was committed, `retries` (attempts that ended
without a commit) and `stuck` (how many units, and the first few with how long they have been at work).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from mmc4_builder.progress import eta_seconds
from mmc4_builder.stuck import Stuck

BYTES = ("bytes_fetched", "bytes_written")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a stage stands."""

    stage: str
    total: int  # units planned
    done: int  # committed, the resumed ones included
    resumed: int = 0  # committed before this run
    running: int = 0  # at work now
    counts: Mapping[str, int] = field(default_factory=dict)  # of all units that are done
    before: Mapping[str, int] = field(default_factory=dict)  # of the resumed ones
    seconds: float = 0.0  # since this run of the stage began
    idle_seconds: float = 0.0  # since a commit was last seen
    retries: int = 0  # attempts that ended without a commit
    stuck: tuple[Stuck, ...] = ()  # the first few, the longest at work first
    stuck_units: int = 0
    state: str = "running"  # done or failed in the end

    @property
    def is_last(self) -> bool:
        return self.state != "running"

    @property
    def eta_seconds(self) -> float | None:
        return eta_seconds(self.total, self.done, self.resumed, self.seconds)

    def rates(self) -> dict[str, float]:
        """A second, of what this run has done; none before any time has passed."""
        if self.seconds <= 0:
            return {}
        fresh = {"units": self.done - self.resumed} | {n: c - self.before.get(n, 0) for n, c in self.counts.items()}
        return {name: round(max(0, count) / self.seconds, 3) for name, count in fresh.items()}


def line(state: State, now: float) -> str:
    """One JSON object on one line, without its end. `now` is Unix time."""
    eta = state.eta_seconds
    told = {
        "time": datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "stage": state.stage,
        "state": state.state,
        "seconds": round(state.seconds, 3),
        "units": {"total": state.total, "done": state.done, "resumed": state.resumed, "running": state.running},
        "counts": dict(state.counts),
        "rates": state.rates(),
        "eta_seconds": None if eta is None else round(eta, 1),
        "idle_seconds": round(state.idle_seconds, 3),
        "retries": state.retries,
        "stuck": {
            "units": state.stuck_units,
            "first": [{"unit": one.unit, "seconds": round(one.seconds), "by": one.by} for one in state.stuck],
        },
    }
    return json.dumps(told)


def exposition(states: Iterable[State], version: str) -> str:
    """All stages that were seen, in Prometheus' text format 0.0.4: base units, and `_total` for what only grows."""
    program = Family("mmc4_build_info", "gauge", "The program.", (({"version": version}, 1),))
    return "".join(text for family in (program, *_families(list(states))) for text in family.lines())


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its samples."""

    name: str
    kind: str  # gauge or counter
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...]

    def lines(self) -> Iterator[str]:
        if self.samples:
            yield f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.kind}\n"
        for labels, value in self.samples:
            pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            yield f"{self.name}{{{pairs}}} {value!r}\n"


def _families(states: list[State]) -> Iterator[Family]:
    """A sample for each stage; what is not known is left out rather than made zero."""
    gauges = (
        ("active", "Whether the stage runs now.", [int(not s.is_last) for s in states]),
        ("units", "Units of work planned.", [s.total for s in states]),
        ("units_resumed", "Units that earlier runs had committed.", [s.resumed for s in states]),
        ("units_running", "Units at work now.", [s.running for s in states]),
        ("units_stuck", "Units at work for too long.", [s.stuck_units for s in states]),
        ("elapsed_seconds", "Since this run of the stage began.", [s.seconds for s in states]),
        ("idle_seconds", "Since anything was committed.", [s.idle_seconds for s in states]),
        ("eta_seconds", "To the end of the stage, as it goes now.", [s.eta_seconds for s in states]),
    )
    counters = (
        ("units_committed_total", "Units committed, the resumed ones included.", [s.done for s in states]),
        ("retries_total", "Attempts at units that ended without a commit.", [s.retries for s in states]),
        ("fetched_bytes_total", "Bytes that units read from outside.", [s.counts.get("bytes_fetched") for s in states]),
        ("written_bytes_total", "Bytes of the files of units.", [s.counts.get("bytes_written") for s in states]),
    )
    for kind, families in (("gauge", gauges), ("counter", counters)):
        for name, told, values in families:
            samples = ((s.stage, value) for s, value in zip(states, values, strict=True) if value is not None)
            yield Family(f"mmc4_stage_{name}", kind, told, tuple(({"stage": stage}, v) for stage, v in samples))
    items = ((s.stage, name, n) for s in states for name, n in s.counts.items() if name not in BYTES)
    samples_of_kinds = tuple(({"stage": stage, "kind": kind}, n) for stage, kind, n in items)
    yield Family("mmc4_stage_items_total", "counter", "Records, documents, images, requests.", samples_of_kinds)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
