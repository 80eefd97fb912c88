"""Size and aspect: the limits themselves, and that the image stage draws the same line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.size import SizeRules, reject
from mmc4_builder.images import ImageRules


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (150, 150, None),
        (149, 150, "too_small"),
        (150, 149, "too_small"),
        (149, 4000, "too_small"),  # the first reason that holds
        (300, 150, None),
        (301, 150, "bad_aspect"),
        (150, 300, None),
        (150, 301, "bad_aspect"),
        (1599, 800, None),
        (1601, 800, "bad_aspect"),
        (728, 90, "too_small"),
        (970, 250, "bad_aspect"),
        (800, 600, None),
        (0, 0, "too_small"),
        (-5, 300, "too_small"),
    ],
)
def test_mmc4_thresholds(width, height, reason):
    assert reject(width, height) == reason


def test_rules_can_be_changed():
    rules = SizeRules(min_side=10, max_aspect=3.0)
    assert reject(30, 10, rules=rules) is None
    assert reject(31, 10, rules=rules) == "bad_aspect"
    assert reject(0, 0, rules=SizeRules(min_side=0)) == "too_small"


@pytest.mark.parametrize("wrong", [{"min_side": -1}, {"max_aspect": 0.5}, {"max_aspect": float("nan")}])
def test_rules_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SizeRules(**wrong)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_turning_a_picture_changes_nothing(width, height):
    assert reject(width, height) == reject(height, width)


def test_image_stage_has_the_same_limits():
    rules, stage = SizeRules(), ImageRules()
    assert (rules.min_side, rules.max_aspect) == (stage.min_side, stage.max_aspect)
