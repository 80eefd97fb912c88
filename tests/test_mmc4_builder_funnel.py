"""The funnel adds up, survives JSON, and reads well in a terminal."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmc4_builder.funnel import (
    Funnel,
    FunnelError,
    Step,
    format_table,
    from_counts,
    merge,
    share,
    tally,
    to_counts,
)

NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)


@st.composite
def steps(draw: st.DrawFn, stage: str | None = None, unit: str | None = None) -> Step:
    kept = draw(st.integers(0, 10**9))
    reasons = draw(st.dictionaries(NAMES, st.integers(0, 10**9), max_size=4))
    return Step(
        stage=stage or draw(NAMES),
        unit=unit or draw(NAMES),
        entered=kept + sum(reasons.values()),
        kept=kept,
        reasons=tuple(reasons.items()),
    )


FUNNELS = st.lists(steps(), max_size=4, unique_by=lambda step: (step.stage, step.unit)).map(tuple).map(Funnel)


def pages(entered: int, kept: int, *reasons: tuple[str, int]) -> Step:
    return Step(stage="documents", unit="pages", entered=entered, kept=kept, reasons=reasons)


def test_numbers_that_do_not_add_up_are_named() -> None:
    with pytest.raises(FunnelError, match=r"documents, pages: 10 entered, but 4 kept \+ 5 dropped = 9"):
        pages(10, 4, ("language", 5))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pages(-1, -1), "entered is -1"),
        (lambda: pages(1, 2, ("language", -1)), "language is -1"),
        (lambda: pages(3, 1, ("language", 1), ("language", 1)), "named twice"),
        (lambda: pages(1, 0, ("", 1)), "'' is no name"),
        (lambda: pages(1, 0, ("a\nb", 1)), "is no name"),
        (lambda: Funnel((pages(1, 1), pages(2, 2))), "2 steps count pages of stage documents"),
    ],
)
def test_bad_counts_are_refused(build: object, message: str) -> None:
    with pytest.raises(FunnelError, match=message):
        build()  # type: ignore[operator]


def test_reasons_stand_biggest_first_then_by_name() -> None:
    step = pages(9, 0, ("b", 2), ("c", 5), ("a", 2))
    assert step.reasons == (("c", 5), ("a", 2), ("b", 2))
    assert step.dropped == 9


def test_tally_counts_what_filters_return() -> None:
    step = tally("images", "images", [None, "too_small", None, "nsfw", "too_small"])
    assert (step.entered, step.kept, step.reasons) == (5, 2, (("too_small", 2), ("nsfw", 1)))


@given(st.lists(st.sampled_from([None, "a", "b"])))
def test_tally_always_adds_up(verdicts: list[str | None]) -> None:
    assert tally("s", "u", verdicts).entered == len(verdicts)


def test_merge_sums_work_units_and_keeps_the_steps_in_order() -> None:
    first = Funnel((pages(10, 4, ("language", 6)), Step(stage="documents", unit="lines", entered=1, kept=1)))
    second = Funnel((pages(5, 5, ("ads", 0)),))
    merged = merge([first, second])
    assert [step.unit for step in merged.steps] == ["pages", "lines"]
    assert merged.steps[0] == pages(15, 9, ("language", 6), ("ads", 0))


@given(st.lists(steps(stage="s", unit="u"), min_size=1, max_size=6))
def test_merge_loses_no_count(parts: list[Step]) -> None:
    (step,) = merge(Funnel((part,)) for part in parts).steps
    expected: Counter[str] = Counter()
    for part in parts:
        expected.update(dict(part.reasons))
    assert step.entered == sum(part.entered for part in parts)
    assert dict(step.reasons) == dict(expected)


@given(FUNNELS)
def test_json_keeps_everything_and_is_stable(funnel: Funnel) -> None:
    text = funnel.to_json()
    assert Funnel.from_json(text) == funnel
    assert Funnel.from_json(text).to_json() == text


def test_json_has_the_keys_in_the_order_of_reading() -> None:
    text = Funnel((pages(3, 1, ("b", 1), ("a", 1)),)).to_json()
    assert text.split('"')[1::2] == [
        *("steps", "stage", "documents", "unit", "pages"),
        *("entered", "kept", "reasons", "a", "b"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"steps": 1}',
        '{"steps": ["x"]}',
        '{"steps": [{"stage": "s", "unit": "u", "entered": 1, "kept": 1}]}',
        '{"steps": [{"stage": "s", "unit": "u", "entered": 1.0, "kept": 1, "reasons": {}}]}',
        '{"steps": [{"stage": "s", "unit": "u", "entered": true, "kept": true, "reasons": {}}]}',
        '{"steps": [{"stage": "s", "unit": "u", "entered": 1, "kept": 1, "reasons": []}]}',
        '{"steps": [{"stage": "s", "unit": "u", "entered": 2, "kept": 1, "reasons": {}}]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_funnel_json_is_refused(text: str) -> None:
    with pytest.raises(FunnelError):
        Funnel.from_json(text)


@given(steps(stage="documents"))
def test_commit_records_hold_a_step(step: Step) -> None:
    counts = dict(sorted({**to_counts(step), "bytes": 7}.items()))
    assert from_counts("documents", [step.unit], counts) == Funnel((step,))


def test_a_unit_that_was_never_counted_is_zero() -> None:
    (step,) = from_counts("documents", ["lines"], {}).steps
    assert (step.entered, step.kept, step.reasons) == (0, 0, ())


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (0, 0, "-"),
        (0, 5, "0.0 %"),
        (5, 5, "100.0 %"),
        (1, 3, "33.3 %"),
        (1, 100_000, "<0.1 %"),
        (99_999, 100_000, ">99.9 %"),
        (1, 1000, "0.1 %"),
    ],
)
def test_share(part: int, whole: int, expected: str) -> None:
    assert share(part, whole) == expected


def test_table() -> None:
    funnel = Funnel(
        (
            pages(1_203_456, 412_000, ("no_images", 500_000), ("language", 291_455), ("lorem_ipsum", 1)),
            Step(stage="interleave", unit="pairs", entered=7, kept=7),
        )
    )
    assert format_table(funnel) == (
        "documents, pages\n"
        "  entered        1,203,456  100.0 %\n"
        "  kept             412,000   34.2 %\n"
        "  dropped          791,456   65.8 %\n"
        "    no_images      500,000   41.5 %\n"
        "    language       291,455   24.2 %\n"
        "    lorem_ipsum          1   <0.1 %\n"
        "\n"
        "interleave, pairs\n"
        "  entered                7  100.0 %\n"
        "  kept                   7  100.0 %\n"
    )


def test_table_of_nothing() -> None:
    assert format_table(Funnel()) == "nothing was counted\n"


@given(FUNNELS)
def test_every_block_of_the_table_adds_up(funnel: Funnel) -> None:
    if not funnel.steps:
        return
    for block in format_table(funnel).split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("  ")]
        # the label may be a reason called `kept`: only two blanks of indent make a total
        totals = {line.split()[0]: _count(line) for line in lines if not line.startswith("    ")}
        reasons = [_count(line) for line in lines if line.startswith("    ")]
        assert totals["entered"] == totals["kept"] + sum(reasons)
        assert totals.get("dropped", 0) == sum(reasons)


def _count(line: str) -> int:
    return int(line.split()[1].replace(",", ""))
