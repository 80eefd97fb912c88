"""What one sample becomes: a piece of a sequence, or a reason to pass it over."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A document, a caption, or a window of one: whole in one row."""

    key: str
    tokens: tuple[int, ...]
    images: tuple[int, ...]  # which of the sample's pictures, in the order of their `<image>` tokens
    look_ahead: bool = False  # text sees the next image instead of the previous one


class Skip(Exception):
    """The sample is counted under `reason` (snake_case) and passed over; nothing is wrong with the run."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
