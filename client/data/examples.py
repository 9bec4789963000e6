"""Examples as tensors: arrays of any kind become what models take."""

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
        """Return what is trained on, and the share that is held out for evaluation: the same each time."""
        order = derive(seed, "holdout", partition).permutation(len(self))
        kept = int(len(order) * holdout)
        if not kept:
            return self, self._pick(order[:0])
        return self._pick(np.sort(order[kept:])), self._pick(np.sort(order[:kept]))

    def fits(self, model: nn.Module, device: str) -> None:
        """Raise DataError, which says what does not fit, unless `model` can be trained on this."""
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
            wrong = low if low < 0 else high
            raise DataError(f"{self.where}: the model tells {classes} classes apart, from 0 on: y is {wrong}")

    def _pick(self, at: np.ndarray) -> "LocalExamples":
        indices = torch.from_numpy(at)
        return LocalExamples(self.where, self.x[indices], self.y[indices])


def examples(where: str, x: np.ndarray, y: np.ndarray) -> LocalExamples:
    """Return arrays as examples: bytes are scaled to [0, 1], whole numbers become int64, all others float32.

    Raises
    ------
    DataError
        If they are not numbers, of the same number of examples, finite, or there are none.
    """
    if len(x) != len(y):
        raise DataError(f"{where}: x has {len(x):,} examples and y {len(y):,}")
    if len(x) == 0:
        raise DataError(f"{where}: there are no examples")
    if y.dtype.kind not in "iub":
        raise DataError(f"{where}: y is whole numbers, the classes, got {y.dtype}")
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
        raise DataError(f"{where}: x is numbers, got {x.dtype}")
    floats = np.ascontiguousarray(x, np.float32)
    for first in range(0, len(floats), 1024):  # a mask of all at once would be a quarter of the data again
        if not np.isfinite(floats[first : first + 1024]).all():
            raise DataError(f"{where}: x holds what is no finite number, from example {first:,} on")
    return floats
