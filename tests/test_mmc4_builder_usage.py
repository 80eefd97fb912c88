"""Content-Usage and Content-Signal: the drafts' examples, and what is no preference."""

import pytest

from mmc4_builder.usage import EARLIER, TRAINING, as_text, most_restrictive, preferences, refused


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("train-ai=n", {"train-ai": False}),
        ("train-ai=n, search=y", {"train-ai": False, "search": True}),
        ("search=yes, ai-train=no, ai-input=no", {"search": True, "ai-train": False, "ai-input": False}),
        ("train-ai=n;reason=x, other=maybe", {"train-ai": False}),
        ('note="a, train-ai=y", train-ai=n', {"train-ai": False}),
        ("train-ai=n, train-ai=y", {"train-ai": True}),  # the last key wins
        ("train-ai=n, train-ai=perhaps", {}),
        ("Train-AI = N", {"train-ai": False}),  # plain to read, though no valid dictionary
        ("train-ai=n,", {"train-ai": False}),
        ("train-ai", {}),
        ("train-ai=?0", {}),  # a Boolean is no token
        ('train-ai="n"', {}),
        ("train-ai=(n)", {}),
        ("train-ai=no-way", {}),
        ("", {}),
        ('"' * 1001, {}),
    ],
)
def test_preferences(value: str, expected: dict[str, bool]) -> None:
    assert preferences(value) == expected


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("search=n", None),
        ("train-ai=y", None),
        ("ai-input=no", None),
        ("train-ai=n", "train-ai"),
        ("ai-train=no", "ai-train"),
        ("genai=n", "genai"),
        ("all=n", "all"),
    ],
)
def test_refused(value: str, label: str | None) -> None:
    assert refused(value, (*TRAINING, *EARLIER)) == label


def test_of_equal_statements_any_refusal_refuses() -> None:
    together = most_restrictive([{"train-ai": True, "search": True}, {"train-ai": False}, {"train-ai": True}])
    assert together == {"train-ai": False, "search": True}
    assert preferences(as_text(together)) == together
