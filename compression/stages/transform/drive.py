"""DRIVE, one bit a value after a random rotation, Vargaftik et al. 2021, https://arxiv.org/abs/2105.08339."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.stages.transform.rotated_quantizer import RotatedQuantizer


@dataclass(frozen=True)
class Drive(RotatedQuantizer):
    """Send the signs of the randomly rotated values, one bit per value, without bias: `drive`.

    Of the paper's two scales this is ||x||_2^2 / ||Rx||_1, the unbiased one, with a squared error of
    (pi / 2 - 1) ||x||^2 in a large block.
    """

    @property
    def levels(self) -> NDArray[np.float32]:
        return np.array([-1, 1], np.float32)
