"""Near duplicates across a corpus: the index of frequent hashes, beside comparing with all of them.

    python benchmarks/corpus_duplicates.py [--entries 100000 1000000] [--lookups 512] [--rounds 5]

The peer is NumPy: XOR with the whole list, count bits, take the highest count within 5 bits. Both get the same
codes, a quarter of them planted 0 to 6 bits from an entry, and must give the same counts. Bits of perceptual
hashes are neither even nor independent, so one table of each size has codes of 24 groups of neighbouring bits
that vary together, which fills buckets unevenly.

The line at the end is of grouped bits and the largest list. The last table is what a corpus of 1 billion
distinct hashes takes, from the lookups just timed in bulk.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from timing import compare, report, show

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from filters.duplicates import FrequentIndex

CORPUS = 1_000_000_000  # distinct hashes
SHUFFLED = 16  # bytes a hash: itself and a count
DISTANCE = 5
Codes = NDArray[np.uint64]
Counts = NDArray[np.int64]


def even(count: int, random: np.random.Generator) -> Codes:
    return random.integers(0, 2**64, count, dtype=np.uint64)


def grouped(count: int, random: np.random.Generator) -> Codes:
    """Codes whose bits follow 24 hidden ones, each with a chance of one in eight of its own."""
    hidden = random.random((count, 24)) < 0.5
    bits = hidden[:, np.arange(64) * 24 // 64] ^ (random.random((count, 64)) < 1 / 8)
    packed: Codes = np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)
    return packed


def planted(codes: Codes, entries: Codes, random: np.random.Generator) -> Codes:
    """The codes, every fourth replaced by an entry with 0 to 6 bits flipped."""
    near = entries[random.integers(0, len(entries), len(codes[::4]))]
    for number in range(6):
        flips = np.uint64(1) << random.integers(0, 64, len(near), dtype=np.uint64)
        near = near ^ np.where(random.integers(0, 7, len(near)) > number, flips, np.uint64(0))
    mixed: Codes = codes.copy()
    mixed[::4] = near
    return mixed


def brute_force(codes: Codes, entries: Codes, counts: Counts) -> Counts:
    best = np.zeros(len(codes), np.int64)
    for row, code in enumerate(codes):
        near = counts[np.bitwise_count(entries ^ code) <= DISTANCE]
        if len(near):
            best[row] = near.max()
    return best


def race(kind: str, size: int, *, lookups: int, rounds: int) -> tuple[float, float, float]:
    """CPU microseconds a lookup: ours in bulk, ours beside the peer, the peer."""
    random = np.random.default_rng(size)
    make = {"even": even, "grouped": grouped}[kind]
    entries, counts = make(size, random), random.integers(11, 10_000, size)
    started = time.process_time()
    index = FrequentIndex(entries, counts, max_distance=DISTANCE)
    built = time.process_time() - started
    few = planted(make(lookups, random), entries, random)
    if not np.array_equal(index.counts(few), brute_force(few, entries, counts)):
        raise SystemExit("the index and the comparison with all entries do not agree")
    runs = {"ours": lambda: index.counts(few), "numpy": lambda: brute_force(few, entries, counts)}
    times = compare(runs, rounds=rounds)
    show(times, items=lookups, label=f"{size:,} entries, {kind} bits, built in {built:.2f} s")
    many = planted(make(200_000, random), entries, random)
    started = time.process_time()
    index.counts(many)
    bulk = 1e6 * (time.process_time() - started) / len(many)
    print(f"  {'ours, 200,000 at once':<38}{bulk:>14.1f}", file=sys.stderr)
    return bulk, 1e6 * times["ours"].cpu / lookups, 1e6 * times["numpy"].cpu / lookups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--lookups", type=int, default=512, help="that both do; comparing with all is slow")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"{CORPUS:,} distinct hashes: {SHUFFLED * CORPUS / 1e9:.0f} GB through one shuffle", file=sys.stderr)
    lines = []
    for size in args.entries:
        for kind in ("even", "grouped"):
            bulk, ours, peer = race(kind, size, lookups=args.lookups, rounds=args.rounds)
            hours = [each * CORPUS / 3.6e9 for each in (bulk, peer)]
            lines.append(f"  {size:>12,} entries, {kind:<8}{hours[0]:>10.1f}{hours[1]:>12.0f}")
    print(f"CPU hours for {CORPUS:,} lookups{'ours':>10}{'numpy':>12}", *lines, sep="\n", file=sys.stderr)
    report(
        claim=f"count near copies among {size:,} frequent hashes",
        ours=ours,
        peer=peer,
        peer_name="numpy comparing with all",
        unit="CPU us/lookup",
        lower_is_better=True,
    )


if __name__ == "__main__":
    main()
