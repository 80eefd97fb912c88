"""Too small to show anything, or shaped like a banner (MMC4 §3)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeRules:
    """MMC4's thresholds. Both are kept at the limit itself: 150 px and 2:1 stay."""

    min_side: int = 150  # px, of the shorter side
    max_aspect: float = 2.0  # longer side over shorter side, so 0.5 to 2 as width over height

    def __post_init__(self) -> None:
        if self.min_side < 0:
            raise ValueError(f"min_side is {self.min_side}; give 0 or more pixels")
        if not self.max_aspect >= 1:
            raise ValueError(f"max_aspect is {self.max_aspect}; give longer over shorter side, at least 1")


MMC4 = SizeRules()


def reject(width: int, height: int, *, rules: SizeRules = MMC4) -> str | None:
    """`too_small`, `bad_aspect`, or None to keep. Pixels of the picture as it was published."""
    short, long = sorted((width, height))
    if short < max(rules.min_side, 1):
        return "too_small"
    if long > rules.max_aspect * short:  # a product, so that 2:1 is exactly 2
        return "bad_aspect"
    return None
