"""EDEN, a few bits a value after a random rotation, Vargaftik et al. 2022, https://arxiv.org/abs/2108.08842."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import SpecError
from fedpress.compression.kernels.lloyd_max import centroids
from fedpress.compression.stages.transform.rotated_quantizer import RotatedQuantizer


@dataclass(frozen=True)
class Eden(RotatedQuantizer):
    """Quantize the randomly rotated values to the 2**bits Lloyd-Max levels of the normal distribution: `eden(bits)`.

    The squared error over the update's squared norm is 0.571 with one bit (`drive`), then 0.133, 0.0358, 0.00959,
    0.00251, 0.000645, 0.000164, 0.0000412. The paper also has fractions of bits, with random dropping below one: put
    `randk` first for that. Its code rotates the whole update at once, padded to a power of two.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise SpecError(f"eden's bits must be 1 to 8, got {self.bits}")

    @property
    def levels(self) -> NDArray[np.float32]:
        return centroids(self.bits)
