"""Pictures that a document, or the corpus, has already.

Within a document MMC4 keeps one copy of pictures whose perceptual hashes differ in at most 5 of 64 bits
(MMC4 §3; 10 for its core subset). Which copy it kept is not published. Here it is the one with most pixels,
because the others are thumbnails of it, and the earliest in DOM order among equals.
"""

from collections.abc import Sequence

import numpy as np


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
