"""Documents that say nearly the same: MinHash over word 5-grams, and the verdict on documents that share a band.

Two documents are near where the sets of their 5-grams overlap by a Jaccard similarity of 0.8 (the threshold of
OmniCorpus and others). MinHash keeps 128 minima of a document; they are cut into 9 bands of 13, and documents with
an equal band are taken for near, without a look at the texts. Of pairs with similarity 0.6 that finds 1 %, of 0.7
8 %, of 0.8 40 %, of 0.9 93 % and of 0.95 99.9 % (1 - (1 - s^13)^9).

The minima are datasketch's. It is pure Python on NumPy and SciPy, which are here already, its scheme `affine32` is
asked for by name, and it takes hashes and permutations from outside, so nothing here hangs on its defaults. rensa
does the whole in a quarter of the time, but its 0.5 makes other hashes than 0.4 of the same year.
0.7 ms a document of 340 words, as long as its page takes to be read from HTML.
"""

import functools
import hashlib
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: spreads a word's bits over all 64
_TOGETHER = 1 << 13  # shingles that are hashed at once: 4 MB for 128 permutations


class NearTextError(RuntimeError):
    """There is nothing to find near documents with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearTextRules:
    """What counts as near. A change of any changes every band key."""

    threshold: float = 0.8  # Jaccard similarity of the sets of shingles
    words: int = 5  # of a shingle
    permutations: int = 128

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold is {self.threshold}; give a similarity between 0 and 1")
        if self.words < 1 or not 1 <= self.permutations <= 1024:
            raise ValueError(f"words must be positive and permutations 1 to 1024 in {self}")


NEAR = NearTextRules()


def bands(sentences: Sequence[str], rules: NearTextRules = NEAR) -> list[int]:
    """A 64-bit key for each band of a document, the same on every machine; none for a text without words.

    Keys of different bands never mean the same, so one shuffle takes all. Raises NearTextError without datasketch.
    """
    hashes = shingles(sentences, rules.words)
    if not len(hashes):
        return []
    minima = _minima(hashes, rules.permutations).astype("<u4")
    count, rows = split(rules)
    return [_key(band, minima[band * rows : (band + 1) * rows].tobytes()) for band in range(count)]


def shingles(sentences: Sequence[str], words: int) -> NDArray[np.uint32]:
    """A hash for each run of `words` words, sentence ends passed over; one for all of a shorter text.

    Words are lower-case and without punctuation. Their order counts: a hash is a polynomial of the words' CRCs.
    """
    text = _WORD.findall("\n".join(sentences).lower())
    if not text:
        return np.zeros(0, np.uint32)
    # Lone surrogates are no UTF-8, yet a page may hold them.
    known = {word: zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in set(text)}
    codes = np.array([known[word] for word in text], np.uint64) + np.uint64(1)
    length = min(words, len(codes))
    places = len(codes) - length + 1
    hashes = np.zeros(places, np.uint64)
    for offset in range(length):
        hashes = (hashes + codes[offset : offset + places]) * _ODD
        hashes ^= hashes >> np.uint64(29)
    return np.asarray(hashes >> np.uint64(32), np.uint32)


@functools.cache
def split(rules: NearTextRules) -> tuple[int, int]:
    """Bands, and rows of each, with the least chance of missed and of false pairs together around the threshold."""
    similarity = (np.arange(2000) + 0.5) / 2000
    best = (np.inf, 1, 1)
    for rows in range(1, rules.permutations + 1):
        for count in range(1, rules.permutations // rows + 1):
            found = 1 - (1 - similarity**rows) ** count
            wrong = np.where(similarity < rules.threshold, found, 1 - found).mean()
            best = min(best, (float(wrong), count, rows))
    return best[1], best[2]


def losers(
    keys: NDArray[np.uint64], owners: NDArray[np.uint64], units: Sequence[str], rows: Sequence[int]
) -> NDArray[np.bool_]:
    """For one bucket of band keys, which rows name a document that loses: all but the first of each key.

    First is who has the lowest owner (such as `text.url_key`), then unit, then row: one order over the corpus, so
    that a document is kept just where it is the first of all its keys, in whichever buckets they are judged.
    Of a set of near documents the first is always kept, and no two kept ones share a band. In a chain, A near B
    near C, C loses to B though B loses to A, even where A and C are far apart: it drops a little more than would
    be needed, and needs no second pass over the corpus. Where B comes last, A and C are both kept.
    """
    _, places = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    numbers = np.asarray(rows, np.int64)
    order = np.lexsort((numbers, places, owners, keys))
    sorted_keys = keys[order]
    begins = np.ones(len(order), bool)
    begins[1:] = sorted_keys[1:] != sorted_keys[:-1]
    first = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    lost = np.zeros(len(order), bool)
    lost[order] = (places[order] != places[first]) | (numbers[order] != numbers[first])
    return lost


def _minima(hashes: NDArray[np.uint32], count: int) -> NDArray[np.uint32]:
    try:
        from datasketch import MinHash
    except ImportError as error:
        raise NearTextError(
            "near-duplicate documents need the datasketch package: pip install 'mmc4-build[dedup]', or leave them in"
        ) from error
    sketch = MinHash(num_perm=count, permutations=_permutations(count), scheme="affine32", hashfunc=int)
    for start in range(0, len(hashes), _TOGETHER):
        sketch.update_batch(hashes[start : start + _TOGETHER].tolist())
    return np.asarray(sketch.hashvalues, np.uint32)


@functools.cache
def _permutations(count: int) -> NDArray[np.uint32]:
    """Odd factors and any summands, [2, count], from SHAKE and not from a generator that may change."""
    drawn = np.frombuffer(hashlib.shake_128(b"near text").digest(8 * count), "<u4").astype(np.uint32)
    return np.stack([drawn[:count] | np.uint32(1), drawn[count:]])


def _key(band: int, minima: bytes) -> int:
    digest = hashlib.blake2b(minima, digest_size=8, salt=band.to_bytes(16, "little")).digest()
    return int.from_bytes(digest, "little")
