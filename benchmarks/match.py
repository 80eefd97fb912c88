"""Assignment of images to sentences: scipy's solver, as match.assign calls it, beside lapjv as MMC4 calls it.

    python benchmarks/match.py [--rounds 7] [--docs ../shared/data/mmc4_docs.jsonl]

The peer does what MMC4's compute_assignments does for a document: pad the float32 costs with 1000 to a
square, solve, and send the images that were matched to padding to their best sentence. The ratio reported
is that of the real documents where they are present, else of the smallest random shape.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from timing import compare, report, show

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from mmc4_builder.match import assign  # noqa: E402

Matrix = npt.NDArray[np.float32]
REAL_DOCS = Path(__file__).resolve().parents[2] / "shared" / "data" / "mmc4_docs.jsonl"
SHAPES = ((20, 5, 400), (60, 20, 200), (300, 100, 20))  # images, sentences, documents a round
PADDING = 1000.0


def peer_assign(similarity: Matrix, lapjv: Callable[..., tuple[float, npt.NDArray[np.int32], object]]) -> object:
    """MMC4's assignment of one document with the solver given."""
    images, sentences = similarity.shape
    side = max(images, sentences)
    cost = np.full((side, side), PADDING, dtype=np.float32)
    cost[:images, :sentences] = -similarity
    columns = lapjv(cost)[1][:images]
    return np.where(columns < sentences, columns, similarity.argmax(axis=1))


def workloads(docs: Path) -> dict[str, list[Matrix]]:
    """The similarity matrices of each case by its name, the real documents first."""
    cases: dict[str, list[Matrix]] = {}
    if docs.exists():
        lines = [json.loads(line) for line in docs.read_text().splitlines()]
        matrices = [np.array(line["doc"]["similarity_matrix"], dtype=np.float32) for line in lines]
        cases[f"{len(matrices)} released documents"] = matrices * 8
    for images, sentences, count in SHAPES:
        chance = np.random.default_rng(images)
        shape = (count, images, sentences)
        cases[f"random {images}x{sentences}"] = list(chance.uniform(0.02, 0.4, shape).astype(np.float32))
    return cases


def _each(solve: Callable[[Matrix], object], matrices: Sequence[Matrix]) -> None:
    for matrix in matrices:
        solve(matrix)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--docs", type=Path, default=REAL_DOCS)
    args = parser.parse_args(argv)
    try:
        from lap import lapjv
    except ImportError:
        print("skipped: the peer is not installed (pip install lap)", file=sys.stderr)
        return 0
    peer = partial(peer_assign, lapjv=lapjv)
    headline: tuple[str, float, float] | None = None
    for name, matrices in workloads(args.docs).items():
        runs = {"ours": partial(_each, assign, matrices), "lap": partial(_each, peer, matrices)}
        times = compare(runs, rounds=args.rounds)
        show(times, items=len(matrices), label=name)
        microseconds = [1e6 * times[who].cpu / len(matrices) for who in ("ours", "lap")]
        headline = headline or (name, microseconds[0], microseconds[1])
    assert headline is not None
    report(
        claim=f"assignment of images to sentences, {headline[0]}",
        ours=headline[1],
        peer=headline[2],
        peer_name="lap lapjv, padded to a square",
        unit="us CPU a document",
        lower_is_better=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
