"""What a codec does to a normally distributed matrix, tried before the first round."""

from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import FedpressError
from fedpress.compression import Codec, Layout


@dataclass(frozen=True)
class CodecTrials:
    """A normally distributed matrix and what was decoded from frames of it.

    Parameters
    ----------
    matrix : numpy.ndarray
        The matrix.
    decoded : tuple of numpy.ndarray
        What each frame decoded to, each with its own draws.

    Examples
    --------
    >>> from fedpress.compression import parse
    >>> trials = try_codec(parse("topk(0.1) | ans"))
    >>> trials is not None and 0.3 < trials.mean_error < 0.7
    True
    """

    matrix: np.ndarray
    decoded: tuple[np.ndarray, ...]

    @property
    def mean_share(self) -> float:
        """Inner product of the matrix and the mean of what was decoded, over the squared norm; 1 without bias."""
        mean = np.mean(self.decoded, axis=0, dtype=np.float64)
        return float((mean * self.matrix).sum() / np.square(self.matrix, dtype=np.float64).sum())

    @property
    def mean_error(self) -> float:
        """Squared error of one frame over the squared norm, on average."""
        squares = [np.square(one - self.matrix, dtype=np.float64).sum() for one in self.decoded]
        return float(np.mean(squares) / np.square(self.matrix, dtype=np.float64).sum())

    @property
    def equal_share(self) -> float:
        """Share of the most frequent value among those of the first frame."""
        return float(np.unique(self.decoded[0], return_counts=True)[1].max() / self.matrix.size)


def try_codec(codec: Codec, count: int = 8) -> CodecTrials | None:
    """Encode and decode a normally distributed matrix with `codec`.

    Parameters
    ----------
    codec : Codec
        The codec.
    count : int
        Number of frames, each of the same matrix and the codec's initial state.

    Returns
    -------
    CodecTrials or None
        The matrix and what the frames decoded to; None if the codec suits other sizes only.
    """
    tensors = {"weight": np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32)}
    layout, rng = Layout.of(tensors), np.random.default_rng(0)
    try:
        frames = [codec.encode(tensors, codec.init(layout), rng)[0] for _ in range(count)]
        return CodecTrials(tensors["weight"], tuple(codec.decode(frame, layout)["weight"] for frame in frames))
    except FedpressError:
        return None
