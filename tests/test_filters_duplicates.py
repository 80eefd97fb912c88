"""Near duplicates within a document, and pictures that are everywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters import duplicates
from filters.duplicates import FrequentIndex, frequent, near_duplicates, too_frequent

ALL = 2**64 - 1


def bits(count):
    """A number with that many bits set, the lowest ones."""
    return (1 << count) - 1


@pytest.mark.parametrize(
    ("hashes", "pixels", "expected"),
    [
        ([], [], []),
        ([7], [1], [None]),
        ([0, ALL], [1, 1], [None, None]),
        ([0, 0, 0], [5, 5, 5], [None, 0, 0]),  # equal sizes: the earliest
        ([0, 0, 0], [5, 9, 9], [1, None, 1]),  # the largest, then the earliest
        ([0, bits(5)], [1, 1], [None, 0]),  # 5 bits: the same
        ([0, bits(6)], [1, 1], [None, None]),  # 6 bits: another
        ([0, bits(5), bits(10)], [3, 2, 1], [None, 0, None]),  # a chain does not merge its ends
        ([0, bits(5), bits(10)], [1, 2, 1], [1, None, 1]),  # unless the middle one stands for both
        ([ALL, ALL - 1], [1, 2], [1, None]),  # all 64 bits are used
    ],
)
def test_table(hashes, pixels, expected):
    assert near_duplicates(hashes, pixels=pixels) == expected


def test_core_subset_is_stricter():
    hashes = [0, bits(10), bits(21)]
    assert near_duplicates(hashes, pixels=[3, 2, 1], max_distance=10) == [None, 0, None]
    assert near_duplicates(hashes, pixels=[3, 2, 1], max_distance=0) == [None, None, None]


near = st.integers(0, 15).flatmap(lambda base: st.sampled_from([0, 1, 3, 7, 31]).map(lambda x: base << 20 ^ x))


@given(st.lists(st.tuples(near, st.integers(1, 4)), max_size=30), st.integers(0, 12))
def test_kept_are_apart_and_dropped_are_near_the_one_that_stands_for_them(items, limit):
    hashes, pixels = [h for h, _ in items], [p for _, p in items]
    verdicts = near_duplicates(hashes, pixels=pixels, max_distance=limit)
    kept = [i for i, verdict in enumerate(verdicts) if verdict is None]
    assert all((hashes[a] ^ hashes[b]).bit_count() > limit for a in kept for b in kept if a < b)
    for index, other in enumerate(verdicts):
        if other is not None:
            assert verdicts[other] is None
            assert (hashes[index] ^ hashes[other]).bit_count() <= limit
            assert pixels[other] >= pixels[index]


def test_thousands_of_pictures():
    hashes = np.random.default_rng(0).integers(0, 2**63, 3000, dtype=np.uint64).tolist()
    verdicts = near_duplicates([*hashes, *hashes], pixels=[1] * 6000)
    assert verdicts[:3000] == [None] * 3000
    assert verdicts[3000:] == list(range(3000))


@pytest.mark.parametrize(
    ("hashes", "pixels", "limit", "message"),
    [([1, 2], [1], 5, "2 hashes but 1 sizes"), ([1], [1], -1, "max_distance is -1"), ([1], [1], 65, "65")],
)
def test_misuse_is_named(hashes, pixels, limit, message):
    with pytest.raises(ValueError, match=message):
        near_duplicates(hashes, pixels=pixels, max_distance=limit)


@pytest.mark.parametrize(("count", "reason"), [(1, None), (10, None), (11, "too_frequent")])
def test_too_frequent(count, reason):
    assert too_frequent(count) == reason


def test_too_frequent_limit_can_be_set():
    assert too_frequent(3, max_count=2) == "too_frequent"


def brute_force(hashes, entries, counts, limit):
    near = np.bitwise_count(hashes[:, None] ^ entries[None, :]) <= limit
    return np.where(near, counts[None, :], 0).max(axis=1, initial=0)


def flipped(codes, places):
    """The codes with these bits flipped, [n, flips] places."""
    for column in np.atleast_2d(places).T:
        codes = codes ^ (np.uint64(1) << column.astype(np.uint64))
    return codes


@pytest.mark.parametrize(
    ("asked", "count"),
    [(0, 20), (bits(5), 20), (bits(6), 20), (bits(7), 0), (ALL, 90), (ALL - 1, 90), (ALL ^ bits(20), 0)],
)
def test_takes_the_count_of_a_near_frequent_hash(asked, count):
    index = FrequentIndex(np.array([0, 1, ALL], np.uint64), np.array([11, 20, 90]))
    assert index.counts(np.array([asked], np.uint64)).tolist() == [count]


codes = st.one_of(st.integers(0, ALL), near, st.sampled_from([0, ALL, bits(21), bits(42)]))


@given(st.lists(codes, max_size=20), st.lists(codes, max_size=20), st.integers(0, 15), st.data())
def test_index_equals_comparing_with_all(entries, asked, limit, data):
    counts = data.draw(st.lists(st.integers(1, 9), min_size=len(entries), max_size=len(entries)))
    entries, asked, counts = np.array(entries, np.uint64), np.array(asked, np.uint64), np.array(counts, np.int64)
    found = FrequentIndex(entries, counts, max_distance=limit).counts(asked)
    assert found.tolist() == brute_force(asked, entries, counts, limit).tolist()


@pytest.mark.parametrize("limit", [0, 2, 5, 10])
def test_every_spread_of_flips_is_found(limit):
    random = np.random.default_rng(limit)
    entries = random.integers(0, 2**64, 1000, dtype=np.uint64)
    places = np.argsort(random.random((1000, 64)), axis=1)[:, : limit + 1]
    index = FrequentIndex(entries, np.arange(1, 1001), max_distance=limit)
    assert index.counts(flipped(entries, places[:, :limit])).tolist() == list(range(1, 1001))
    assert index.counts(flipped(entries, places)).tolist() == [0] * 1000


def test_entries_that_share_whole_blocks_are_compared_in_parts(monkeypatch):
    monkeypatch.setattr(duplicates, "_CANDIDATES", 100)
    random = np.random.default_rng(1)
    entries = random.integers(0, 2**12, 700, dtype=np.uint64)
    asked = random.integers(0, 2**12, 300, dtype=np.uint64)
    counts = random.integers(1, 1000, 700)
    index = FrequentIndex(entries, counts, max_distance=1)
    assert index.counts(asked).tolist() == brute_force(asked, entries, counts, 1).tolist()


def test_the_frequent_list_is_sorted_and_has_the_floor_itself():
    hashes, counts = frequent(np.array([9, 5, 7], np.uint64), np.array([3, 4, 2]), floor=3)
    assert hashes.tolist() == [5, 9] and counts.tolist() == [4, 3]
    assert FrequentIndex(hashes[:0], counts[:0]).counts(hashes).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("counts", "limit", "message"), [([1, 2], 5, "1 hashes but 2 counts"), ([1], 16, "is 16"), ([1], -1, "is -1")]
)
def test_misuse_of_the_index_is_named(counts, limit, message):
    with pytest.raises(ValueError, match=message):
        FrequentIndex(np.zeros(1, np.uint64), np.array(counts), max_distance=limit)
