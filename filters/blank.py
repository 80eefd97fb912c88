"""Pictures that show nothing: one colour, or a speck on it.

Measured with `image_evidence.detail`. One colour, with or without noise, has 0. A black dot on white has 0.003
at 20 px and 0.008 at 40 px of an 800x600 picture, a small "image not available" 0.009. Of 278 real pictures of
manuals the emptiest, a login screen, has 0.032; drawings of a few thin lines have 0.025 to 0.14. The limit lies
below the moon on a black sky (0.015), and a factor of three below the real ones. What is lost, too, is what a
thumbnail averages away, such as stars, and gradients of less than 9 grey levels.
"""

MIN_DETAIL = 0.01


def reject(detail: float, *, min_detail: float = MIN_DETAIL) -> str | None:
    """`blank` where less than `min_detail` of a picture stands out from its background, or None to keep."""
    return "blank" if detail < min_detail else None
