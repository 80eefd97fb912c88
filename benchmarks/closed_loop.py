"""Do images inform text? The losses on held-out documents of a run, as a picture and as figures.

    mmc4-build --crawl sample --output build/sample
    mmc4-train --config tiny --data build/sample --output runs/tiny
    python benchmarks/closed_loop.py runs/tiny [--picture docs/closed_loop.png]

Reads runs/tiny/metrics.jsonl. Four losses on the same tokens (train/validation.py): with the right images, with images
of other documents, without images, and the frozen language model alone.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LINES = (
    ("language", "frozen language model, no images", "#888888"),
    ("blind", "trained model, no images", "#e0a030"),
    ("shuffled", "trained model, shuffled images", "#c04040"),
    ("images", "trained model, right images", "#2060b0"),
)


def read(run: Path, dataset: str) -> list[dict[str, float]]:
    """Validations in order of their steps; of a step that was validated twice, the last."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        sys.exit(f"{path} is not there: train first, with mmc4-train --config tiny --data build/sample --output {run}")
    by_step: dict[int, dict[str, float]] = {}
    for text in path.read_text().splitlines():
        line = _parsed(text)
        values = line.get("validation", {})
        found = {name.partition("/")[2]: value for name, value in values.items() if name.startswith(f"{dataset}/")}
        if found:
            by_step[line["step"]] = {"step": line["step"], **found}
    if not by_step:
        sys.exit(f"{path} has no validation of dataset {dataset!r}: it needs held_out in its configuration")
    return [by_step[step] for step in sorted(by_step)]


def _parsed(text: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:  # the half line of a process that was killed
        return {}
    return found


def verdict(last: Mapping[str, float]) -> dict[str, float]:
    """What the right images save, in nats a token; positive is good."""
    others = [name for name, _, _ in LINES if name != "images" and name in last]
    return {f"below_{name}": round(last[name] - last["images"], 4) for name in others}


def show(found: Sequence[Mapping[str, float]]) -> None:
    names = [name for name, _, _ in reversed(LINES)]
    print(f"{'step':>6}" + "".join(f"{name:>12}" for name in names), file=sys.stderr)
    for line in found:
        values = "".join(f"{line.get(name, float('nan')):>12.4f}" for name in names)
        print(f"{int(line['step']):>6}{values}", file=sys.stderr)


def draw(found: Sequence[Mapping[str, float]], picture: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), dpi=120, layout="constrained")
    steps = [line["step"] for line in found]
    for name, label, colour in LINES:
        if name in found[-1]:
            style = "--" if name == "language" else "-"
            axes.plot(steps, [line.get(name) for line in found], style, color=colour, label=label, linewidth=2)
    axes.set_xlabel("updates")
    axes.set_ylabel("loss on held-out documents, nats a token")
    axes.legend(frameon=False, ncol=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/tiny"))
    parser.add_argument("--dataset", default="interleaved")
    parser.add_argument("--picture", type=Path, default=Path("docs/closed_loop.png"))
    given = parser.parse_args()
    found = read(given.run, given.dataset)
    show(found)
    draw(found, given.picture)
    last = found[-1]
    losses = {name: round(last[name], 4) for name, _, _ in reversed(LINES) if name in last}
    line = {
        "claim": "images inform text: held-out loss in nats a token, right images against the two baselines",
        "images_help": last["images"] < min(last["shuffled"], last.get("language", float("inf"))),
        "ratio": round(last["shuffled"] / last["images"], 3),
        "steps": int(last["step"]),
        "tokens": int(last["tokens"]),
        **losses,
        **verdict(last),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
