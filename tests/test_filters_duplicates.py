"""Near duplicates within a document, and pictures that are everywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.duplicates import near_duplicates, too_frequent

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
