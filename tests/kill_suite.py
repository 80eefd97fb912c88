"""Kill builds at random moments, run them again until they get through, and compare every byte with an undisturbed one.

    python tests/kill_suite.py --seeds 50

Each seed kills the launcher, one worker, or all of them, several times. Launchers are forked from this process, which
has everything imported: what is tested starts where the command line does.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from builds import ROOT, digests, write_corner

RESULTS = ("docs", "shards", "images", "interleave", "scores", "documents", "commits", "optout.parquet")
STEPS = {
    "extract": "documents", "judge_urls": "documents", "claim_lines": "documents", "judge_lines": "documents",
    "documents": "documents", "mention": "images", "redirects": "images", "aliases": "images", "images": "images",
    "occurrences": "images", "frequent": "images", "embed": "scores", "scores": "scores", "heads": "scores",
    "interleave": "interleave", "shards": "shards",
}  # fmt: skip
MOMENTS = ("start", "documents", "images", "scores", "interleave", "shards", "end")
VICTIMS = {"launcher": 5, "launcher of two workers": 1, "one worker": 2, "all": 2}  # with their weights
MOST_KILLS = 4  # in one seed
PATIENCE = 240.0  # seconds until a run counts as hung


@dataclass(frozen=True)
class Kill:
    """One kill: whom, and how far the build was."""

    victim: str
    moment: str


@dataclass(frozen=True)
class Bench:
    """The build that is killed: where its crawl lies, its undisturbed result, how long that took."""

    folder: Path
    flags: tuple[str, ...]
    digests: dict[str, str]
    seconds: float


def launch(flags: tuple[str, ...], output: Path, workers: int) -> int:
    """Fork a launcher in a session of its own; its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        log = os.open(f"{output}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["mmc4-build", *flags, "--output", str(output), "--workers", str(workers)]
        from mmc4_builder.cli import main

        code = main(sys.argv[1:])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int | None:
    """Exit status of a child, negative for a signal; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def wait(pid: int, what: str) -> int:
    """The exit status, in the end."""
    deadline = time.monotonic() + PATIENCE
    while (code := ended(pid)) is None:
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"{what} hung for {PATIENCE:.0f} s")
        time.sleep(0.01)
    return code


def committed(output: Path) -> Counter[str]:
    """Commit records by stage."""
    return Counter(STEPS[path.parent.name] for path in (output / "commits").rglob("[0-9]*.json"))


def moment(output: Path) -> str:
    """How far a build is."""
    found = committed(output)
    if (output / "report.html").exists():
        return "end"
    return next((stage for stage in reversed(MOMENTS) if found[stage]), "start")


def workers_of(launcher: int) -> list[int]:
    """Worker processes of a launcher that runs."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(launcher)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "pipelines.worker" in line]


def kill_once(bench: Bench, output: Path, dice: random.Random) -> Kill | None:
    """Start a build and kill it at a random moment; None where it got through before."""
    (victim,) = dice.choices(list(VICTIMS), list(VICTIMS.values()))
    goal = committed(output).total() + dice.randint(0, 20) if dice.random() < 0.75 else 0
    delay = dice.uniform(0, 0.2) if goal else dice.uniform(0, bench.seconds)
    pid = launch(bench.flags, output, 1 if victim == "launcher" else 2)
    deadline = time.monotonic() + PATIENCE
    while (code := ended(pid)) is None and committed(output).total() < goal and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay if code is None else 0)
    targets = [] if victim == "one worker" else [pid]
    while not targets and (code := ended(pid) if code is None else code) is None:
        targets = workers_of(pid)  # there are none between two stages
    if code is None and (code := ended(pid)) is None and targets:
        kill = Kill(victim, moment(output))
        if victim == "all":
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(dice.choice(targets), signal.SIGKILL)
        if (code := wait(pid, f"a launcher after {kill}")) != 0:
            assert code in (1, -signal.SIGKILL), f"{kill}: exit status {code}"
            return kill
        return None  # a worker that was not needed any more
    code = wait(pid, "a build") if code is None else code
    assert code == 0, f"a build ended with {code}: see {output}.log"
    return None


def run_seed(bench: Bench, seed: int) -> list[Kill]:
    """Kill one build several times, let it finish, and compare it."""
    dice, output, kills = random.Random(seed), bench.folder / f"seed{seed}", []
    while len(kills) < MOST_KILLS:
        if (kill := kill_once(bench, output, dice)) is not None:
            kills.append(kill)
        elif kills:
            break
        else:  # it got through undisturbed: once more
            subprocess.run(["rm", "-rf", str(output)], check=True)
    code = wait(launch(bench.flags, output, 1), "the last run")
    assert code == 0, f"seed {seed}: the last run ended with {code}: {output.with_suffix('.log').read_text()}"
    check(bench, output, f"seed {seed}, {kills}")
    subprocess.run(["rm", "-rf", str(output)], check=True)
    return kills


def check(bench: Bench, output: Path, what: str) -> None:
    """Nothing lost, nothing double, nothing left over."""
    found = digests(output, *RESULTS)
    differing = sorted(path for path in found.keys() | bench.digests if found.get(path) != bench.digests.get(path))
    assert not differing, f"{what}: {differing}"
    left = [str(path) for path in output.rglob("*") if path.name.startswith(".") or path.suffix in (".tmp", ".lock")]
    assert not left, f"{what}: {left}"


def prepare(folder: Path) -> Bench:
    """The crawl, and the undisturbed build."""
    crawl = write_corner(folder / "crawl", files=2, every=24)
    flags = ("--input", *map(str, crawl), "--images", "archive", "--clip", "tiny", "--config", "sample")
    output = folder / "undisturbed"
    started = time.monotonic()
    assert wait(launch(flags, output, 1), "the undisturbed build") == 0, Path(f"{output}.log").read_text()
    return Bench(folder, flags, digests(output, *RESULTS), time.monotonic() - started)


def table(kills: list[Kill]) -> str:
    """Where the kills fell."""
    counts = Counter(kills)
    lines = [f"{'killed':<24}" + "".join(f"{name:>12}" for name in MOMENTS) + f"{'all':>12}"]
    for victim in VICTIMS:
        row = [counts[Kill(victim, name)] for name in MOMENTS]
        lines.append(f"{victim:<24}" + "".join(f"{n:>12}" for n in (*row, sum(row))))
    return "\n".join(lines)


def import_everything() -> None:
    """So that a launcher that is forked has little to do before its work begins."""
    import open_clip  # noqa: F401
    import torch

    import pipelines.command  # noqa: F401

    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="the first seed, to repeat one that failed")
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    import_everything()
    kills: list[Kill] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(Path(folder))
        print(f"undisturbed: {len(bench.digests)} files in {bench.seconds:.1f} s", flush=True)
        for seed in range(args.first, args.first + args.seeds):
            found = run_seed(bench, seed)
            kills += found
            fell = "; ".join(f"{kill.victim} in {kill.moment}" for kill in found) or "got through"
            print(f"seed {seed}: the same bytes after {len(found)} kills ({fell})", flush=True)
    print(f"{table(kills)}\n{args.seeds} seeds, {len(kills)} kills: the same bytes each time, nothing left over")


if __name__ == "__main__":
    main()
