"""Facts about pixels that are one number each, taken while a picture is in memory, for filters to judge later."""

import numpy as np
from numpy.typing import NDArray

_NEAR = 4  # grey levels; JPEG blocks and a sensor's noise stay within them once a thumbnail has averaged them


def detail(thumbnail: NDArray[np.uint8]) -> float:
    """The share of a picture that stands out from its background, 0 to 1.

    The background is the commonest grey: the 9 neighbouring levels that hold most cells of the luma thumbnail
    (`phash.thumbnail`, 32x32). The standard deviation would be the obvious measure, but it is 3 for one
    black dot, and 2 to 5 for drawings of thin lines; this is 0.003, and 0.025 to 0.14. Colours of one luma are one
    grey here. About 20 us.
    """
    up_to = np.zeros(256 + 2 * _NEAR + 1, dtype=np.int64)
    np.cumsum(np.bincount(thumbnail.ravel(), minlength=256), out=up_to[_NEAR + 1 : _NEAR + 257])
    up_to[_NEAR + 257 :] = thumbnail.size
    window = up_to[2 * _NEAR + 1 :] - up_to[: -2 * _NEAR - 1]  # cells within _NEAR of each level
    return float(1 - window.max() / max(thumbnail.size, 1))
