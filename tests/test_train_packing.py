"""A packed sequence never overflows, and no sample is lost or doubled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.packing import LEAST_PART, fill
from train.sequences import Piece


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30), length=st.integers(1, 50))
def test_sequences_from_a_stream(lengths: list[int], length: int) -> None:
    lengths = [*lengths, *[length] * length]  # so that the last sequence fills
    given_out: list[Piece] = []

    def next_piece(room: int) -> Piece:
        number = len(given_out)
        piece = Piece(key=str(number), tokens=(number,) * min(room, lengths[number]), images=())
        given_out.append(piece)
        return piece

    rows: list[list[Piece]] = []
    while len(given_out) < len(lengths) - length:
        rows.append(fill(next_piece, length))
    assert [piece for row in rows for piece in row] == given_out  # whole, in order, once
    for row in rows:
        used = sum(len(piece.tokens) for piece in row)
        assert length - max(1, length // LEAST_PART) < used <= length
        assert all(len(piece.tokens) == lengths[int(piece.key)] for piece in row[:-1])  # only the last one is cut


@pytest.mark.parametrize("tokens", [0, 9])
def test_a_piece_that_does_not_fit(tokens: int) -> None:
    with pytest.raises(ValueError, match=f"k: a piece of {tokens} tokens for a room of 8"):
        fill(lambda room: Piece(key="k", tokens=(1,) * tokens, images=()), 8)


def test_no_length() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        fill(lambda room: Piece(key="k", tokens=(1,), images=()), 0)
