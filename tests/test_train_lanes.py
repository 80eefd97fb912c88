"""The order of samples: permutations, nothing read twice or left out, the same for any number of ranks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.lanes import STREAMS, Lanes, Split, permuted, seed_of


@given(count=st.integers(1, 3000), seed=st.integers(0, 2**64 - 1))
def test_it_is_a_permutation(count: int, seed: int) -> None:
    assert sorted(permuted(index, count, seed) for index in range(count)) == list(range(count))


def test_large_datasets_cost_no_memory() -> None:
    found = {permuted(index, 10**12, 7) for index in range(2000)}
    assert len(found) == 2000 and max(found) < 10**12 and max(found) > 9 * 10**11


def test_neighbours_do_not_stay_together() -> None:
    places = [permuted(index, 10_000, 3) for index in range(10_000)]
    steps = [abs(a - b) for a, b in zip(places, places[1:], strict=False)]
    assert 3000 < sum(steps) / len(steps) < 3700  # a third of the range where the two are independent
    assert sum(step == 1 for step in steps) < 10


def test_seeds_are_the_same_everywhere() -> None:
    assert seed_of("order", 0, "m3w", 1) == 8071735864596721634
    assert seed_of("a", "b") != seed_of("ab") and seed_of(1) == seed_of("1")


@given(samples=st.integers(1, 200), every=st.sampled_from([0, 2, 3, 10]))
def test_training_and_held_out_share_the_samples(samples: int, every: int) -> None:
    split = Split(samples=samples, every=every)
    training = [split.training_index(number) for number in range(split.training)]
    held_out = [split.held_out_index(number) for number in range(split.held_out)]
    assert sorted(training + held_out) == list(range(samples))
    assert not every or all(index % every == every - 1 for index in held_out)


@settings(max_examples=30)
@given(samples=st.integers(1, 40), batch=st.integers(1, 5), every=st.sampled_from([0, 2, 7]))
def test_an_epoch_reads_each_sample_once(samples: int, batch: int, every: int) -> None:
    split = Split(samples=samples, every=every)
    lanes = Lanes(split=split, batch=batch, seed=5, name="m3w")
    places = [
        (k, stream, row)
        for k in range(2 + 2 * samples // STREAMS // batch)
        for stream in range(STREAMS)
        for row in range(batch)
    ]
    draws = [lanes.draw(stream, row, k) for k, stream, row in places]
    for epoch in range(2):
        found = [draw.index for draw in draws if draw.epoch == epoch]
        assert sorted(found) == sorted(split.training_index(number) for number in range(split.training))


@pytest.mark.parametrize("change", ({"seed": 6}, {"name": "pairs"}))
def test_runs_and_datasets_have_orders_of_their_own(change: dict) -> None:
    split = Split(samples=1000)
    first, second = (
        Lanes(**{"split": split, "batch": 2, "seed": 5, "name": "m3w", **extra})  # type: ignore[arg-type]
        for extra in ({}, change)
    )
    assert [first.draw(0, 0, k).index for k in range(20)] != [second.draw(0, 0, k).index for k in range(20)]
