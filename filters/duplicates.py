"""Pictures that a document, or the corpus, has already.

Within a document MMC4 keeps one copy of pictures whose perceptual hashes differ in at most 5 of 64 bits
(MMC4 §3; 10 for its core subset). Which copy it kept is not published. Here it is the one with most pixels,
because the others are thumbnails of it, and the earliest in DOM order among equals.

Across the corpus MMC4 removed pictures with more than 10 copies in a sample of 60 thousand. Here every picture
counts, in three steps that move hashes and never pictures:

1. Exact copies are counted over everything: a hash and a count, 16 bytes, for each distinct hash of a bucket of
   hosts go through a shuffle. For 1 billion hashes that is 16 GB (and a name of the bucket, dictionary-coded).
2. Hashes with at least `floor` documents are the frequent list. With m mentions in all it cannot have more than
   m / floor entries; logos and stock pictures are far fewer.
3. Every picture within `max_distance` bits of an entry takes its count (`FrequentIndex`), since a logo is stored
   in many sizes and qualities. Copies of which none reaches the floor are not found: their counts are not added up.

The index splits codes into blocks. Codes that differ in d bits differ in at most d // b of them in one of b
blocks; so for 5 bits and 3 blocks one block is equal or a single flip away. A table for each block gives the
entries to compare: about 60 buckets of half an entry, where bits are even. The verdict is the same as by
comparing with all. Measured by `benchmarks/corpus_duplicates.py` with a million entries (80 MB): 5 us a lookup
with even bits and 45 us where neighbouring bits agree, so that 1 billion hashes are 1.5 to 13 CPU hours, and 650
by comparing with all in NumPy.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MAX_DISTANCE = 15  # beyond it blocks have fewer than 8 bits, and no table helps
_TOGETHER = 1 << 12  # codes that are looked up at once
_CANDIDATES = 1 << 20  # entries that are compared at once, as an upper bound on memory: 60 MB


def near_duplicates(hashes: Sequence[int], *, pixels: Sequence[int], max_distance: int = 5) -> list[int | None]:
    """For each picture of one document None (kept), or the index of the kept picture that it repeats.

    `pixels` is width x height of each. Pictures are visited by falling size, then in order. One that no kept
    picture has claimed is kept, and claims every unclaimed picture within `max_distance` bits of itself. So
    each dropped picture is that close to the one that stands for it, and no two kept ones are: chains of
    small steps do not merge what lies further apart. Memory is O(n), time O(n x kept).
    """
    if len(hashes) != len(pixels):
        raise ValueError(f"{len(hashes)} hashes but {len(pixels)} sizes; give one of each a picture")
    if not 0 <= max_distance <= 64:
        raise ValueError(f"max_distance is {max_distance}; give 0 to 64 bits")
    codes = np.array(hashes, dtype=np.uint64)
    verdicts: list[int | None] = [None] * len(codes)
    free = np.ones(len(codes), dtype=bool)
    for index in sorted(range(len(codes)), key=lambda i: (-pixels[i], i)):
        if not free[index]:
            continue
        free[index] = False
        claimed = free & (np.bitwise_count(codes ^ codes[index]) <= max_distance)
        free &= ~claimed
        for other in np.flatnonzero(claimed):
            verdicts[other] = index
    return verdicts


def too_frequent(count: int, *, max_count: int = 10) -> str | None:
    """`too_frequent` for a picture with more than `max_count` copies, or None to keep.

    MMC4 §3 counts in a sample of 60 thousand pictures: logos and stock buttons that every site repeats.
    """
    return "too_frequent" if count > max_count else None


def frequent(
    hashes: NDArray[np.uint64], counts: NDArray[np.int64], *, floor: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes that at least `floor` documents show, ascending, and their counts.

    Verdicts of `too_frequent` need no floor below max_count + 1; a lower one leaves room to lower max_count later.
    """
    often = np.flatnonzero(counts >= floor)
    often = often[np.argsort(hashes[often], kind="stable")]
    return hashes[often], counts[often]


class FrequentIndex:
    """The highest count among the frequent hashes near each hash, exactly, by multi-index hashing.

    Memory is 72 to 96 bytes an entry; a lookup needs no more than 60 MB beside it, whatever the codes are. Time
    holds for codes whose bits vary; where most entries agree in whole blocks it tends to comparing with all.
    """

    def __init__(self, hashes: NDArray[np.uint64], counts: NDArray[np.int64], *, max_distance: int = 5) -> None:
        if len(hashes) != len(counts):
            raise ValueError(f"{len(hashes)} hashes but {len(counts)} counts; give one of each")
        if not 0 <= max_distance <= _MAX_DISTANCE:
            raise ValueError(f"max_distance is {max_distance}; give 0 to {_MAX_DISTANCE} bits")
        blocks = max(3, max_distance // 2 + 1)
        flips = max_distance // blocks  # 0 or 1
        edges = [64 * block // blocks for block in range(blocks + 1)]
        self._max_distance = max_distance
        self._tables = [
            _Table(np.asarray(hashes, np.uint64), np.asarray(counts, np.int64), low=low, bits=high - low, flips=flips)
            for low, high in zip(edges, edges[1:], strict=False)
        ]

    def counts(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """For each hash the highest count within `max_distance` bits of it, 0 where no frequent one is near."""
        codes = np.asarray(hashes, np.uint64)
        best = np.zeros(len(codes), np.int64)
        for start in range(0, len(codes), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            for table in self._tables:
                table.raise_to(best[part], codes[part], self._max_distance)
        return best


class _Table:
    """Entries by the bits of one block of their codes."""

    def __init__(
        self, codes: NDArray[np.uint64], counts: NDArray[np.int64], *, low: int, bits: int, flips: int
    ) -> None:
        # Fewer bits than the block has are enough for buckets of about half an entry, and leave the verdict as it is.
        bits = min(bits, len(codes).bit_length() + 1)
        self._low = np.uint64(low)
        self._mask = np.uint64((1 << bits) - 1)
        self._changes = np.array([0, *(1 << bit for bit in range(bits))][: 1 + flips * bits], np.int64)
        keys = self._keys(codes)
        order = np.argsort(keys, kind="stable")
        self._codes, self._counts = codes[order], counts[order]
        self._bounds = np.zeros((1 << bits) + 1, np.int32 if len(codes) < 1 << 31 else np.int64)
        np.cumsum(np.bincount(keys, minlength=1 << bits), out=self._bounds[1:])

    def _keys(self, codes: NDArray[np.uint64]) -> NDArray[np.int64]:
        return np.asarray(codes >> self._low & self._mask, np.int64)

    def raise_to(self, best: NDArray[np.int64], codes: NDArray[np.uint64], max_distance: int) -> None:
        """Raise `best`, in place, to the counts of entries that are near and share the block but for the flips."""
        keys = (self._keys(codes)[:, None] ^ self._changes).ravel()
        first = self._bounds[keys]
        sizes = self._bounds[keys + 1] - first
        full = np.flatnonzero(sizes)
        asked, first, sizes = full // len(self._changes), first[full], sizes[full]
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if len(ends) else 0
        for start in range(0, total, _CANDIDATES):
            place = np.arange(start, min(start + _CANDIDATES, total))
            bucket = np.searchsorted(ends, place, side="right")
            entry = first[bucket] + place - (ends[bucket] - sizes[bucket])
            code = asked[bucket]
            near = np.bitwise_count(self._codes[entry] ^ codes[code]) <= max_distance
            np.maximum.at(best, code[near], self._counts[entry[near]])
