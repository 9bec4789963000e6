"""Codecs that lose a part of every update for good, or for many rounds."""

import logging

import numpy as np

from fedpress.common.errors import FedpressError
from fedpress.common.logs import LOGGER
from fedpress.compression import Codec, Layout

_log = logging.getLogger(LOGGER)

_WHOLE = 0.95  # share of an update from which on nothing to speak of is lost
_OFTEN = 0.5  # share of the nodes in a round from which on a memory is sent soon


def warn_of_loss(codec: Codec, requests: int, nodes: int) -> None:
    """Warn if `codec` drops a part of each update, and no memory sends it soon.

    What a codec drops is mostly the same for all nodes, so averaging does not bring it back. With memory a node sends
    it when it takes part again, when the model has long moved on.

    Parameters
    ----------
    codec : Codec
        The codec of updates.
    requests : int
        Number of nodes in a round.
    nodes : int
        Number of nodes.
    """
    if codec.stateful and requests < _OFTEN * nodes:
        _log.warning(
            "up, %r, keeps what it leaves out for the node's next update, and %d of %d nodes take part in a round: "
            "it is late by many rounds. An unbiased codec, such as up=auto, loses less",
            *(str(codec), requests, nodes),
        )
    elif not codec.stateful and (share := sent_share(codec)) < _WHOLE:
        _log.warning(
            "up, %r, drops %.0f %% of each update for good: put ef before it if nodes take part often, or choose an "
            "unbiased codec, such as up=auto",
            *(str(codec), 100 * (1 - share)),
        )


def sent_share(codec: Codec) -> float:
    """Return the share of an update that `codec` sends, of the part in its shared subspace: 1 without bias.

    It is the inner product of a normally distributed matrix and its decoded frame over the squared norm, and over the
    share of the subspace; 1 if the codec cannot be tried.

    Examples
    --------
    >>> from fedpress.compression import parse
    >>> sent_share(parse("topk(0.1) | ans")) < 0.6
    True
    """
    matrix = {"weight": np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32)}
    layout, rng, trials = Layout.of(matrix), np.random.default_rng(0), 8
    try:
        frames = [codec.encode(matrix, codec.init(layout), rng)[0] for _ in range(trials)]
        decoded = [codec.decode(frame, layout)["weight"] for frame in frames]
    except FedpressError:  # it suits other sizes only
        return 1.0
    mean = np.mean(decoded, axis=0, dtype=np.float64)
    sent = float((mean * matrix["weight"]).sum() / np.square(matrix["weight"], dtype=np.float64).sum())
    return sent / (codec.subspace_share or 1)
