"""What float32 holds: an approximation of a number near the end of its range can lie beyond that end."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = np.finfo(np.float32).max


def cut(values: NDArray[Any]) -> NDArray[Any]:
    """Return `values` with those beyond float32, infinities too, replaced by its largest finite number."""
    return np.asarray(np.clip(values, -_LARGEST, _LARGEST))
