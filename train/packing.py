"""Several documents in one sequence, until it is full."""

from collections.abc import Callable

from train.sequences import Piece

# A piece is started only where this part of the sequence is left: what is left behind the last piece is padding, and
# shorter scraps of documents would hardly hold an image and its sentence. At most an eighth is lost so, and it is
# lost only where a document happens to end in that last eighth.
LEAST_PART = 8


def fill(next_piece: Callable[[int], Piece], length: int) -> list[Piece]:
    """The pieces of one sequence of `length` tokens, in the order in which they came.

    `next_piece(room)` gives the next sample's piece, of 1 to `room` tokens: it cuts the sample to the room there is.
    What is cut off is not read again until the next epoch. At least one piece is taken.
    """
    if length < 1:
        raise ValueError(f"a sequence needs a length of at least 1, not {length}")
    least = max(1, length // LEAST_PART)
    pieces: list[Piece] = []
    room = length
    while room >= least:
        piece = next_piece(room)
        if not 0 < len(piece.tokens) <= room:
            raise ValueError(f"{piece.key}: a piece of {len(piece.tokens)} tokens for a room of {room}")
        pieces.append(piece)
        room -= len(piece.tokens)
    return pieces
