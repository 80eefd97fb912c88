"""Corpus-wide duplicates: which capture of a URL stays, and which page keeps a line that several have."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dedup import line_losers, url_losers
from pipelines.schemas import LINE_CLAIMS, URL_CLAIMS

Url = tuple[int, str, str, int]
Line = tuple[int, int, str, int, int]


def losers(rows: list[tuple[object, ...]], schema: pa.Schema) -> list[int]:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * len(schema)
    judge = url_losers if schema is URL_CLAIMS else line_losers
    return [int(i) for i in judge(pa.table(columns, schema=schema)).nonzero()[0]]


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ([], []),
        ([(1, "2024-01-01T00:00:00Z", "00000", 0)], []),
        ([(1, "2024-01-01T00:00:00Z", "00000", 0), (2, "2023-01-01T00:00:00Z", "00000", 1)], []),
        # The newest capture stays, wherever it lies.
        ([(1, "2024-01-02T00:00:00Z", "00000", 0), (1, "2024-01-01T00:00:00Z", "00000", 1)], [1]),
        ([(1, "2024-01-01T00:00:00Z", "00000", 0), (1, "2024-01-02T00:00:00Z", "00001", 0)], [0]),
        # Of equally old ones the first of the crawl.
        ([(1, "2024-01-01T00:00:00Z", "00001", 0), (1, "2024-01-01T00:00:00Z", "00000", 9)], [0]),
        ([(1, "2024-01-01T00:00:00Z", "00000", 1), (1, "2024-01-01T00:00:00Z", "00000", 0)], [0]),
    ],
)
def test_urls(claims: list[Url], expected: list[int]) -> None:
    assert losers(list(claims), URL_CLAIMS) == expected


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ([], []),
        ([(1, 5, "00000", 0, 0), (2, 5, "00000", 0, 1)], []),
        # The page whose URL has the smallest hash keeps the line (C4).
        ([(1, 7, "00000", 0, 0), (1, 5, "00001", 0, 0), (1, 6, "00000", 1, 0)], [0, 2]),
        # Hashes are unsigned.
        ([(2**64 - 1, 2**64 - 1, "00000", 0, 0), (2**64 - 1, 2**63, "00000", 1, 0)], [0]),
        # Twice on one page: the first stays.
        ([(1, 5, "00000", 0, 4), (1, 5, "00000", 0, 2)], [0]),
    ],
)
def test_lines(claims: list[Line], expected: list[int]) -> None:
    assert losers(list(claims), LINE_CLAIMS) == expected


KEY = st.integers(0, 4)


@given(st.lists(st.tuples(KEY, KEY, st.sampled_from(["00000", "00001"]), KEY, KEY), unique=True), st.randoms())
def test_one_of_each_line_stays_whatever_the_order(claims: list[Line], random: object) -> None:
    lost = set(losers(list(claims), LINE_CLAIMS))
    kept = {claim for i, claim in enumerate(claims) if i not in lost}
    assert sorted(claim[0] for claim in kept) == sorted({claim[0] for claim in claims})
    shuffled = list(claims)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    lost = set(losers(list(shuffled), LINE_CLAIMS))
    assert kept == {claim for i, claim in enumerate(shuffled) if i not in lost}
