"""Differential privacy: rules for compression with flwr's wrappers."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from fedpress.common.errors import SettingError
from fedpress.common.rng import GLOBAL_GENERATORS
from fedpress.compression import Codec

_SERVER = (
    flower.DifferentialPrivacyServerSideFixedClipping,
    flower.DifferentialPrivacyServerSideAdaptiveClipping,
)
_CLIENT = (
    flower.DifferentialPrivacyClientSideFixedClipping,
    flower.DifferentialPrivacyClientSideAdaptiveClipping,
)
_ROUNDING = 1e-6  # by which rounding may take a clipped update's norm above the bound


def is_private(strategy: Strategy) -> bool:
    """Return whether `strategy` adds noise for privacy."""
    return isinstance(strategy, _SERVER + _CLIENT)


def divides_by_norm(strategy: Strategy) -> bool:
    """Return whether `strategy` divides by the norm of updates, as flwr 1.41 does to clip them."""
    return isinstance(strategy, _SERVER)


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
