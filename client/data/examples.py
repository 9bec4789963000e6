"""Examples as tensors: converts and checks arrays."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedpress.common.errors import DataError
from fedpress.common.rng import derive


@dataclass(frozen=True, eq=False)
class LocalExamples:
    """A device's examples; the first axis of both counts them."""

    where: str  # for messages
    x: Tensor  # (n, ...)
    y: Tensor  # int64, (n, ...)

    def __len__(self) -> int:
        return len(self.x)

    def split(self, holdout: float, seed: int, partition: int) -> tuple["LocalExamples", "LocalExamples"]:
        """Return the training examples and the share held out for evaluation; the same for the same seed."""
        order = derive(seed, "holdout", partition).permutation(len(self))
        kept = int(len(order) * holdout)
        if not kept:
            return self, self._pick(order[:0])
        return self._pick(np.sort(order[kept:])), self._pick(np.sort(order[:kept]))

    def fits(self, model: nn.Module, device: str) -> None:
        """Raise DataError unless `model` can be trained on these examples."""
        shape = tuple(self.x.shape[1:])
        training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                classes = model(self.x[:1].to(device)).shape[-1]
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{self.where}: the model takes no x of shape {shape}, {self.x.dtype}: {line}") from error
        finally:
            model.train(training)
        low, high = int(self.y.min()), int(self.y.max())
        if low < 0 or high >= classes:
            invalid = low if low < 0 else high
            raise DataError(f"{self.where}: y must be in 0..{classes - 1}, the model's classes, got {invalid}")

    def _pick(self, positions: np.ndarray) -> "LocalExamples":
        indices = torch.from_numpy(positions)
        return LocalExamples(self.where, self.x[indices], self.y[indices])


def examples(where: str, x: np.ndarray, y: np.ndarray) -> LocalExamples:
    """Return arrays as examples: bytes are scaled to [0, 1], other integers become int64, all others float32.

    Raises
    ------
    DataError
        If the arrays are not numbers, differ in length, are empty, or x is not finite.
    """
    if len(x) != len(y):
        raise DataError(f"{where}: x has {len(x):,} examples and y {len(y):,}")
    if len(x) == 0:
        raise DataError(f"{where}: there are no examples")
    if y.dtype.kind not in "iub":
        raise DataError(f"{where}: y must be integers, the classes, got {y.dtype}")
    return LocalExamples(
        where, torch.from_numpy(_inputs(where, x)), torch.from_numpy(np.ascontiguousarray(y, np.int64))
    )


def _inputs(where: str, x: np.ndarray) -> np.ndarray:
    if x.dtype == np.uint8:
        scaled = x.astype(np.float32)
        scaled /= 255
        return scaled
    if x.dtype.kind in "iu":
        return np.ascontiguousarray(x, np.int64)
    if x.dtype.kind not in "fb":
        raise DataError(f"{where}: x must be numbers, got {x.dtype}")
    floats = np.ascontiguousarray(x, np.float32)
    for first in range(0, len(floats), 1024):  # one mask for all would take a quarter of the data's memory
        if not np.isfinite(floats[first : first + 1024]).all():
            raise DataError(f"{where}: x must be finite, which it is not from example {first:,} on")
    return floats
