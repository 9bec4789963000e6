"""Strategies that compare nodes value by value, with codecs that make many values equal."""

import logging

from flwr.serverapp.strategy import Bulyan, FedMedian, FedTrimmedAvg, Strategy

from fedpress.common.logs import LOGGER
from fedpress.compression import Codec
from fedpress.server.aggregation.codec_trials import try_codec
from fedpress.server.aggregation.consistency import innermost

_log = logging.getLogger(LOGGER)

_BY_VALUE = (FedMedian, FedTrimmedAvg, Bulyan)
_EQUAL = 1 / 3  # share of equal values from which on medians are drawn to that value


def warn_of_equal_values(strategy: Strategy, codec: Codec) -> None:
    """Warn if `strategy` takes medians of single values, and `codec` makes many of them the same.

    Where most nodes send zero for a value, its median is zero, whatever the others learned.
    """
    inner = innermost(strategy)
    if isinstance(inner, _BY_VALUE) and (share := equal_share(codec)) >= _EQUAL:
        _log.warning(
            "%s compares nodes value by value, and up, %r, makes %.0f %% of the values equal: its models learn little. "
            "MultiKrum compares whole updates, and lowrank(nmse=0.1) | ans keeps values apart",
            *(type(inner).__name__, str(codec), 100 * share),
        )


def equal_share(codec: Codec) -> float:
    """Return the share of the most frequent value in a normally distributed matrix that `codec` coded; 0 if it cannot.

    Examples
    --------
    >>> from fedpress.compression import parse
    >>> equal_share(parse("topk(0.1) | ans")) > 0.8
    True
    """
    trials = try_codec(codec, count=1)
    return trials.equal_share if trials else 0.0
