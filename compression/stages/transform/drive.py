"""DRIVE, one bit a value after a random rotation, Vargaftik et al. 2021, https://arxiv.org/abs/2105.08339."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.stages.transform.rotated_quantizer import RotatedQuantizer


@dataclass(frozen=True)
class Drive(RotatedQuantizer):
    """`drive`: the signs of the rotated values.

    The paper has two scales: ||Rx||_1 / d gives the least error of one update, ||x||_2^2 / ||Rx||_1 an unbiased one,
    which a mean over many clients wants. This is the second, with squared error (pi / 2 - 1) ||x||^2 in a large block.
    """

    @property
    def levels(self) -> NDArray[np.float32]:
        return np.array([-1, 1], np.float32)
