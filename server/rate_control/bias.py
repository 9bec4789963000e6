"""Codecs that lose a part of every update, for good or for many rounds, or keep nodes from the server's model."""

import logging

from fedpress.common.logs import LOGGER
from fedpress.compression import Codec
from fedpress.server.aggregation.codec_trials import try_codec

_log = logging.getLogger(LOGGER)

_WHOLE = 0.95  # share of an update from which on nothing to speak of is lost
_OFTEN = 0.5  # share of the nodes in a round from which on a memory is sent soon
_NO_NEARER = 1.0  # error of a delta from which on it takes a node's model no nearer to the server's


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


def warn_of_model_error(setting: str, codec: Codec) -> None:
    """Warn if `codec` leaves a model, or a delta of it, with an error as large as itself.

    A node receives one frame, whose error nothing averages: with such a code its model moves away from the server's.

    Parameters
    ----------
    setting : str
        The setting that names the codec, "down" or "key".
    codec : Codec
        The codec.
    """
    if (error := frame_error(codec)) >= _NO_NEARER:
        _log.warning(
            "%s, %r, has an error of %.2g times the squared norm of what it codes, so that nodes' models move away "
            "from the server's: choose a codec with an error well below 1, such as down=auto",
            *(setting, str(codec), error),
        )


def warn_of_biased_steps(codec: Codec) -> None:
    """Warn if `codec` drops a part of each step that server and nodes take, which is then never taken.

    Parameters
    ----------
    codec : Codec
        The codec of steps.
    """
    if (share := sent_share(codec)) < _WHOLE:
        _log.warning(
            "down, %r, drops %.0f %% of each step for good: choose an unbiased codec, such as down=auto, or "
            "broadcast=deltas",
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
    trials = try_codec(codec)
    return trials.mean_share / (codec.subspace_share or 1) if trials else 1.0


def frame_error(codec: Codec) -> float:
    """Return the squared error that `codec` leaves over the squared norm, of the part in its shared subspace.

    It is measured on a normally distributed matrix; 0 if the codec cannot be tried.

    Examples
    --------
    >>> from fedpress.compression import parse
    >>> frame_error(parse("crosspolytope(noise=3.0)")) > 1 > frame_error(parse("lowrank(nmse=0.3) | ans"))
    True
    """
    trials = try_codec(codec)
    if not trials:
        return 0.0
    share = codec.subspace_share or 1
    return (trials.mean_error - (1 - share)) / share
