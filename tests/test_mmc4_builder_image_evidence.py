"""One number a picture: how much of it stands out from its background."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from mmc4_builder.image_evidence import detail


def thumb(**cells: int) -> np.ndarray:
    """White, with the first cells of other greys: thumb(g0=10, g128=5)."""
    flat = np.full(1024, 255, np.uint8)
    start = 0
    for grey, count in cells.items():
        flat[start : start + count] = int(grey[1:])
        start += count
    return flat.reshape(32, 32)


@pytest.mark.parametrize(
    ("thumbnail", "expected"),
    [
        (thumb(), 0),
        (thumb(g0=1024), 0),
        (thumb(g0=512), 0.5),
        (thumb(g0=10), 10 / 1024),
        (thumb(g0=10, g128=10), 20 / 1024),
        (thumb(g247=400), 0),  # 9 levels are one background
        (thumb(g246=400), 400 / 1024),  # 10 are not
        (np.repeat(np.arange(256, dtype=np.uint8), 4).reshape(32, 32), 1 - 9 * 4 / 1024),
    ],
)
def test_table(thumbnail: np.ndarray, expected: float) -> None:
    assert detail(thumbnail) == pytest.approx(expected)


@given(arrays(np.uint8, (8, 8)))
def test_is_what_a_loop_would_find(thumbnail: np.ndarray) -> None:
    levels = thumbnail.astype(int).ravel()
    most = max(int(np.sum(np.abs(levels - level) <= 4)) for level in range(256))
    assert detail(thumbnail) == pytest.approx(1 - most / 64)
