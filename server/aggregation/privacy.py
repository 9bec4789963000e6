"""Differential privacy: rules for compression with flwr's wrappers.

A wrapper promises noise of `noise_multiplier` times what one node can move the mean. So replies weigh the same, and the
noise is set by the number of replies that count, not of those that were asked.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy

from fedpress.common.errors import SettingError
from fedpress.common.logs import LOGGER
from fedpress.common.rng import GLOBAL_GENERATORS
from fedpress.compression import Codec

_log = logging.getLogger(LOGGER)

_SERVER = (
    flower.DifferentialPrivacyServerSideFixedClipping,
    flower.DifferentialPrivacyServerSideAdaptiveClipping,
)
_CLIENT = (
    flower.DifferentialPrivacyClientSideFixedClipping,
    flower.DifferentialPrivacyClientSideAdaptiveClipping,
)
_FIXED = (
    flower.DifferentialPrivacyServerSideFixedClipping,
    flower.DifferentialPrivacyClientSideFixedClipping,
)
_ROUNDING = 1e-6  # by which rounding may take a clipped update's norm above the bound


def is_private(strategy: Strategy) -> bool:
    """Return whether `strategy` adds noise for privacy."""
    return isinstance(strategy, _SERVER + _CLIENT)


def divides_by_norm(strategy: Strategy) -> bool:
    """Return whether `strategy` divides by the norm of updates, as flwr 1.41 does to clip them."""
    return isinstance(strategy, _SERVER)


def check_strategy(strategy: Strategy) -> None:
    """Raise SettingError if a wrapper's noise, which is for a mean, is not for what the strategy in it computes.

    A strategy of the user's own is only warned of, since what it computes is unknown.
    """
    if not isinstance(strategy, _SERVER + _CLIENT):
        return
    wrapper, inner = type(strategy).__name__, type(strategy.strategy)
    if issubclass(inner, FedAvg) and inner.aggregate_train is FedAvg.aggregate_train:
        return
    reason = f"{wrapper} adds noise for a mean: the strategy in it must aggregate as FedAvg does, got {inner.__name__}"
    if inner.__module__.partition(".")[0] == "flwr":
        raise SettingError(reason)
    _log.warning("%s, of which that is not known", reason)


@contextmanager
def noise_for(strategy: Strategy, count: int) -> Iterator[None]:
    """Let a wrapper add noise for `count` replies within the context: each moves their mean by its bound / `count`."""
    if not isinstance(strategy, _SERVER + _CLIENT):
        yield
        return
    sampled = strategy.num_sampled_clients
    strategy.num_sampled_clients = count
    try:
        yield
    finally:
        strategy.num_sampled_clients = sampled


def abandon(strategy: Strategy, number: int) -> None:
    """Tell a wrapper that nothing of round `number` is released, so that its accountant can begin it again."""
    if isinstance(strategy, _FIXED) and strategy.accountant is not None:
        strategy.aggregate_train(number, [])


def check(strategy: Strategy, codec: Codec) -> None:
    """Raise SettingError if `codec` breaks the bound on a node's contribution, on which privacy depends.

    A codec with memory adds the residual of earlier updates to one that was clipped. Wrappers that clip on the server
    clip decoded updates, so they can be combined with any codec.
    """
    if isinstance(strategy, _CLIENT) and codec.stateful:
        raise SettingError(
            f"{type(strategy).__name__} clips before compression: up must be a codec without memory, got "
            f"{str(codec)!r}, or the server must clip"
        )


def bound(strategy: Strategy) -> float:
    """Return the L2 norm to which decoded updates are clipped; infinity if they are not.

    A lossy codec may decode to a larger norm than the one that the node clipped to. Clipping depends on this update
    alone, so the sensitivity of the sum is that of the wrapper.
    """
    return float(strategy.clipping_norm) * (1 + _ROUNDING) if isinstance(strategy, _CLIENT) else math.inf


@contextmanager
def noise_from_system() -> Iterator[None]:
    """Seed `numpy.random`, from which flwr draws its noise, from the system: a run's seed must not reveal it."""
    with GLOBAL_GENERATORS:
        np.random.seed()  # noqa: NPY002
        yield
