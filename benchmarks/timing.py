"""Time two ways of doing one job side by side, and print what the claim says.

    times = compare({"ours": run_ours, "peer": run_peer}, rounds=7)
    show(times, items=300)
    report(claim="...", ours=times["ours"].cpu, peer=times["peer"].cpu, peer_name="img2dataset",
           unit="s CPU", lower_is_better=True)

Cores are often shared, so both run in one process, in alternating order, and medians are compared.
"""

import gc
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Medians over the rounds, in seconds a run. `cpu` counts every thread of this process, no children."""

    cpu: float
    wall: float


def _once(run: Callable[[], object]) -> tuple[float, float]:
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def compare(runs: Mapping[str, Callable[[], object]], *, rounds: int = 5, warmups: int = 1) -> dict[str, Times]:
    """Run every contender once a round, every other round in reverse, after `warmups` untimed runs."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(warmups):
        for run in runs.values():
            run()
    for number in range(rounds):
        for name in list(runs)[:: -1 if number % 2 else 1]:
            samples[name].append(_once(runs[name]))
    return {
        name: Times(cpu=median(cpu for cpu, _ in taken), wall=median(wall for _, wall in taken))
        for name, taken in samples.items()
    }


def show(times: Mapping[str, Times], *, items: int, label: str = "") -> None:
    """A small table on stderr: CPU and wall microseconds for each of `items` items, and items a second."""
    print(f"{label or 'contender':<40}{'CPU us/item':>14}{'wall us/item':>14}{'items/s':>12}", file=sys.stderr)
    for name, taken in times.items():
        cpu, wall = 1e6 * taken.cpu / items, 1e6 * taken.wall / items
        print(f"  {name:<38}{cpu:>14.1f}{wall:>14.1f}{items / taken.wall:>12.1f}", file=sys.stderr)


def installed(distribution: str) -> str:
    """The installed version of a distribution, or "" where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def report(*, claim: str, ours: float, peer: float, peer_name: str, unit: str, lower_is_better: bool = False) -> None:
    """The last line of stdout: one JSON object. `ratio` is how many times better ours is, so > 1 is a win.

    The first word of `peer_name` is the distribution whose version is reported.
    """
    ratio = peer / ours if lower_is_better else ours / peer
    line = {
        "claim": claim,
        "ratio": round(ratio, 3),
        "ours": round(ours, 6),
        "peer": round(peer, 6),
        "peer_name": peer_name,
        "peer_version": installed(peer_name.split()[0]),
        "unit": unit,
    }
    print(json.dumps(line), flush=True)
