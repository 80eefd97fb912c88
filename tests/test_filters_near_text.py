"""Near documents share a band, others do not, and of those that share one only the first stays."""

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.near_text import NEAR, NearTextRules, bands, losers, shingles, split

pytest.importorskip("datasketch")

FOX = "The quick brown fox jumps over the lazy dog."


def text(seed: int, words: int = 400) -> list[str]:
    chosen = random.Random(seed)
    return [f"w{chosen.randrange(2000)}" for _ in range(words)]


def near(first: list[str], second: list[str]) -> bool:
    return not set(bands(first)).isdisjoint(bands(second))


def test_keys_are_the_same_everywhere() -> None:
    """Another version of a library, or another machine, must find these."""
    assert bands([FOX])[:3] == [12901600287638422595, 7925334210465747015, 6791823640054487949]
    assert shingles([FOX], 5).tolist() == [3287004708, 2704639950, 590633232, 1392675789, 4043308838]


@pytest.mark.parametrize(
    "same",
    [
        [FOX],
        ["the quick, brown fox", "JUMPS over the lazy - dog"],  # case, punctuation and sentence ends
    ],
)
def test_the_same_words_have_the_same_keys(same: list[str]) -> None:
    assert bands(same) == bands([FOX])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["one two three four five six"], ["six five four three two one"]),
        (["one"], ["two"]),
        (["one"], ["one two"]),
        (text(1), text(2)),
    ],
)
def test_other_texts_share_no_band(first: list[str], second: list[str]) -> None:
    assert not near(first, second)


def test_a_few_changed_words_are_near_and_a_changed_half_is_not() -> None:
    whole = text(1)
    assert all(near(whole, [*whole[:200], f"new{n}", *whole[201:]]) for n in range(20))
    assert not any(near(whole, [*whole[:200], *text(n, 200)]) for n in range(2, 22))


@pytest.mark.parametrize("nothing", [[], [""], ["...", " -- "]])
def test_no_words_no_keys(nothing: list[str]) -> None:
    assert bands(nothing) == []


def test_hostile_text() -> None:
    assert len(bands(["\ud800 a\0b \u0130 " * 10])) == 9
    assert len(bands(["word " * 50_000])) == 9
    assert len(bands(["x" * 190_000])) == 9


@pytest.mark.parametrize(
    ("rules", "expected"),
    [(NEAR, (9, 13)), (NearTextRules(threshold=0.5), (25, 5)), (NearTextRules(permutations=1), (1, 1))],
)
def test_split(rules: NearTextRules, expected: tuple[int, int]) -> None:
    assert split(rules) == expected
    assert len(bands([FOX], rules)) == expected[0]


@pytest.mark.parametrize(
    "wrong", [{"threshold": 0}, {"threshold": 1}, {"threshold": float("nan")}, {"words": 0}, {"permutations": 2000}]
)
def test_bad_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give|must be"):
        NearTextRules(**wrong)  # type: ignore[arg-type]


def lost(*claims: tuple[int, int, str, int]) -> list[bool]:
    keys, owners, units, rows = zip(*claims, strict=True) if claims else ((), (), (), ())
    mask: list[bool] = losers(np.array(keys, np.uint64), np.array(owners, np.uint64), units, rows).tolist()
    return mask


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ([], []),
        ([(7, 1, "a", 0)], [False]),
        ([(7, 2, "a", 0), (7, 1, "b", 0)], [True, False]),  # the lowest owner
        ([(7, 1, "b", 0), (7, 1, "a", 5)], [True, False]),  # then the unit
        ([(7, 1, "a", 5), (7, 1, "a", 4)], [True, False]),  # then the row
        ([(7, 2**64 - 1, "a", 0), (7, 2**63, "b", 0)], [True, False]),  # all 64 bits count
        ([(7, 1, "a", 0), (8, 2, "b", 0)], [False, False]),  # other keys
        ([(7, 1, "a", 0), (7, 1, "a", 0)], [False, False]),  # never to itself
        # A near B near C: C goes though B goes, too.
        ([(7, 1, "a", 0), (7, 2, "b", 0), (8, 2, "b", 0), (8, 3, "c", 0)], [False, True, False, True]),
        # A near C near B: both ends stay.
        ([(7, 1, "a", 0), (7, 3, "c", 0), (8, 2, "b", 0), (8, 3, "c", 0)], [False, True, False, True]),
    ],
)
def test_losers(claims: list[tuple[int, int, str, int]], expected: list[bool]) -> None:
    assert lost(*claims) == expected


document = st.tuples(st.sampled_from("abc"), st.integers(0, 2)).map(lambda at: ((ord(at[0]) + at[1]) % 3, *at))
claim = st.tuples(st.integers(0, 4), document).map(lambda pair: (pair[0], *pair[1]))


@given(st.lists(claim, max_size=30))
def test_one_document_stays_for_each_key_and_buckets_do_not_matter(claims: list[tuple[int, int, str, int]]) -> None:
    verdicts = lost(*claims)
    for key in {claim[0] for claim in claims}:
        own = [claim for claim in claims if claim[0] == key]
        first = min(own, key=lambda claim: claim[1:])
        assert {c for c, gone in zip(claims, verdicts, strict=True) if c[0] == key and not gone} == {first}
        assert lost(*own) == [gone for c, gone in zip(claims, verdicts, strict=True) if c[0] == key]


def test_without_the_package_the_remedy_is_named() -> None:
    script = "import sys; sys.modules['datasketch'] = None\nfrom filters.near_text import bands\nbands(['a'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "NearTextError" in done.stderr and "pip install 'mmc4-build[dedup]'" in done.stderr
