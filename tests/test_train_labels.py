"""Labels equal a token-by-token reading of the rules, for one document a sequence and for packed ones.

OpenFlamingo's own labels are compared in test_train_interleaved.py and test_train_pairs.py.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_tokens import vocabulary

from train.config import Labels
from train.labels import targets
from train.vocabulary import Vocabulary

MADE = replace(vocabulary(3), start=7)
I, C, E, S = MADE.image, MADE.end_of_chunk, MADE.end, 7  # noqa: E741


def by_the_rules(ids: list[int], real: int, made: Vocabulary, scheme: Labels, interleaved: bool) -> list[int]:
    """One row, one token at a time."""
    found, seeing = [], False
    for place, token in enumerate(ids):
        starts = token == made.start and (place == 0 or ids[place - 1] == made.end)
        wanted = place < real and token != made.image and not starts
        if scheme == "openflamingo" and interleaved and not seeing:
            wanted = False
        if token in (made.image, made.end_of_chunk):
            seeing = token == made.image
        found.append(token if wanted else -100)
    return found


@given(
    rows=st.lists(
        st.lists(st.sampled_from([I, C, E, S, 20, 21, 22]), min_size=12, max_size=12), min_size=1, max_size=4
    ),
    real=st.integers(0, 12),
    scheme=st.sampled_from(["openflamingo", "paper"]),
    interleaved=st.booleans(),
    start=st.sampled_from([None, S, E]),
)
def test_any_sequence(rows: list[list[int]], real: int, scheme: Labels, interleaved: bool, start: int | None) -> None:
    made = replace(MADE, start=start)
    rows = [[*row[:real], *[made.pad] * (12 - real)] for row in rows]
    mask = (torch.arange(12) < real).long().expand(len(rows), -1)
    found = targets(torch.tensor(rows), mask, made, scheme, interleaved=interleaved)
    assert found.tolist() == [by_the_rules(row, real, made, scheme, interleaved) for row in rows]


X = -100
TABLE = [
    ("openflamingo", True, [20, I, 21, C, 22, I, 23, C, E], [X, X, 21, C, X, X, 23, C, X]),
    ("openflamingo", True, [I, C, I, 23, C, E, X], [X, C, X, 23, C, X, X]),
    ("openflamingo", False, [I, 21, 22, C, E], [X, 21, 22, C, E]),
    ("paper", True, [20, I, 21, C, 22, I, 23, C, E], [20, X, 21, C, 22, X, 23, C, E]),
    # Two documents: what comes before the second one's image is no target of the first one's.
    ("openflamingo", True, [I, 21, C, E, 22, 23, I, 24, C, E], [X, 21, C, X, X, X, X, 24, C, X]),
    ("paper", True, [S, I, 21, C, E, S, 22, I, 24, C, E], [X, X, 21, C, E, X, 22, X, 24, C, E]),
]


@pytest.mark.parametrize(("scheme", "interleaved", "ids", "labels"), TABLE)
def test_by_hand(scheme: Labels, interleaved: bool, ids: list[int], labels: list[int]) -> None:
    """-100 among the ids is padding."""
    row = torch.tensor([ids])
    mask = (row != X).long()
    found = targets(row.where(mask.bool(), torch.tensor(MADE.pad)), mask, MADE, scheme, interleaved=interleaved)
    assert found.tolist() == [labels]


def test_a_packed_sequence_has_the_labels_of_its_documents() -> None:
    documents = [[20, I, 21, C, E], [I, 22, C, 23, I, 24, C, E], [25, I, 26, 27]]
    whole = torch.tensor([sum(documents, [])])
    apart = [torch.tensor([document]) for document in documents]
    for scheme in ("openflamingo", "paper"):
        found = targets(whole, torch.ones_like(whole), MADE, scheme, interleaved=True)
        parts = [targets(one, torch.ones_like(one), MADE, scheme, interleaved=True) for one in apart]
        assert torch.equal(found, torch.cat(parts, dim=1))


def test_the_end_is_learnt_where_padding_is_the_same_token() -> None:
    made = vocabulary(2)
    assert made.pad == made.end
    ids = torch.tensor([[made.image, 20, made.end_of_chunk, made.end, made.pad]])
    mask = torch.tensor([[1, 1, 1, 1, 0]])
    found = targets(ids, mask, made, "paper", interleaved=False)
    assert found.tolist() == [[-100, 20, made.end_of_chunk, made.end, -100]]


def test_where_start_and_end_are_one_token() -> None:
    """OPT: </s> opens a document and closes it."""
    made = replace(MADE, start=E)
    ids = torch.tensor([[E, I, 21, C, E, E, I, 22, C, E]])
    found = targets(ids, torch.ones_like(ids), made, "paper", interleaved=True)
    assert found.tolist() == [[X, X, 21, C, E, X, X, 22, C, E]]
