"""Stuck units and retries: tables of what was seen, and what comes of it."""

import pytest

from mmc4_builder import stuck
from mmc4_builder.stuck import AtWork, Patience, Stuck, overdue, told
from mmc4_builder.timings import Attempt, parse

A, B, C = (Attempt("images", f"0000{n}", number) for n, number in enumerate(("aa", "bb", "cc")))
AGAIN = Attempt("images", "00000", "dd")
ALL = {"00000", "00001", "00002"}


@pytest.mark.parametrize(
    ("took", "limit"),
    [((), 1800.0), ((1.0,), 300.0), ((29.0, 31.0, 3000.0), 310.0), ((60.0, 60.0), 600.0)],
)
def test_patience(took: tuple[float, ...], limit: float) -> None:
    assert Patience().limit(took) == limit


@pytest.mark.parametrize(
    ("ages", "took", "found"),
    [
        ({}, {}, []),
        ({("extract", "1"): 1800.0}, {}, []),  # not yet
        ({("extract", "1"): 1801.0}, {}, [("extract", "1")]),
        ({("extract", "1"): 301.0}, {"extract": [3.0]}, [("extract", "1")]),
        ({("extract", "1"): 301.0}, {"mention": [3.0]}, []),  # another step says nothing
        (
            {("a", "1"): 301.0, ("a", "2"): 302.0, ("b", "1"): 301.0},
            {"a": [1.0], "b": [1.0]},
            [("a", "2"), ("a", "1"), ("b", "1")],
        ),
    ],
)
def test_overdue(ages: dict[stuck.Key, float], took: dict[str, list[float]], found: list[stuck.Key]) -> None:
    assert overdue(ages, took, Patience()) == found


def seen(*listings: tuple[float, list[Attempt], set[str]]) -> AtWork:
    """After listings at some times, each with the units that had not committed."""
    work = AtWork()
    for now, listed, waiting in listings:
        work.see(listed, {"images": waiting}, now)
    return work


def test_time_counts_from_the_first_sight() -> None:
    work = seen((5.0, [A, B], ALL), (9.0, [A, B, C], ALL))
    assert work.since == {A: 5.0, B: 5.0, C: 9.0}
    assert not work.lost


def test_other_stages_are_passed_over() -> None:
    assert not seen((5.0, [Attempt("extract", "00000", "aa", failed=True)], ALL)).lost


def test_a_failed_attempt_is_a_retry_once() -> None:
    failed = Attempt("images", "00000", "aa", failed=True)
    work = seen((5.0, [A], ALL), (6.0, [failed, AGAIN], ALL), (7.0, [failed, AGAIN], ALL))
    assert work.lost == {failed}
    assert list(work.since) == [AGAIN]


def test_a_unit_that_commits_just_now_is_no_retry() -> None:
    """Its note goes a moment after its record comes."""
    work = seen((5.0, [A], ALL), (6.0, [A], ALL - {"00000"}), (7.0, [], ALL - {"00000"}))
    assert not work.lost and not work.since


def test_the_note_of_a_killed_worker_is_a_retry_when_another_commits() -> None:
    work = seen((5.0, [A], ALL), (6.0, [A, AGAIN], ALL))
    assert work.latest({"images": ALL}) == {("images", "00000"): AGAIN}  # by which its age is told
    for now in (7.0, 8.0, 9.0):
        work.see([A], {"images": ALL - {"00000"}}, now)
    assert work.lost == {A} and not work.since


def test_what_committed_after_the_listing_is_not_at_work() -> None:
    work = seen((5.0, [A, B], ALL))
    assert list(work.latest({"images": ALL - {"00000"}})) == [("images", "00001")]


def test_told() -> None:
    one = Stuck(unit="images/00003", seconds=725.0, usual=4.0, by="h/1/2")
    other = Stuck(unit="images/00007", seconds=1900.0)
    assert told("images", [one, other], 5) == (
        "images: stuck: images/00003 at work for 12m05s (usually 4s, by h/1/2), images/00007 at work for 31m40s "
        "(none of its step is done yet) and 3 more. They hang, or their worker is gone; the others go on."
    )


@pytest.mark.parametrize("attempt", [A, Attempt("read_c4", "c4.train.1", "0a1b2c3d", failed=True)])
def test_an_attempt_is_read_back_from_its_name(attempt: Attempt) -> None:
    assert parse(attempt.path.removeprefix("running/")) == attempt


@pytest.mark.parametrize("name", ["", "x", "x.json", "images.00001.json", ".json", "a..b.json", "README.md"])
def test_other_names_are_passed_over(name: str) -> None:
    assert parse(name) is None
