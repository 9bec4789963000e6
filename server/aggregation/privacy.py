"""Differential privacy: what compression may not do to flwr's wrappers, and what it must do for them."""

import math

import numpy as np
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from fedpress.common.errors import SettingError
from fedpress.compression import Codec

_SERVER = (
    flower.DifferentialPrivacyServerSideFixedClipping,
    flower.DifferentialPrivacyServerSideAdaptiveClipping,
)
_CLIENT = (
    flower.DifferentialPrivacyClientSideFixedClipping,
    flower.DifferentialPrivacyClientSideAdaptiveClipping,
)
_ROUNDING = 1e-6  # by which a clipped update's norm may pass the bound: float32 cannot do better


def is_private(strategy: Strategy) -> bool:
    """Whether `strategy` adds noise for privacy."""
    return isinstance(strategy, _SERVER + _CLIENT)


def divides_by_norm(strategy: Strategy) -> bool:
    """Whether `strategy` cannot take an update of nothing: where flwr 1.41 clips, it divides by the update's norm."""
    return isinstance(strategy, _SERVER)


def check(strategy: Strategy, codec: Codec) -> None:
    """Raise SettingError if `codec` breaks the bound on what a node contributes, on which privacy rests.

    A codec with memory sends, with an update, what it held back of earlier ones, which were clipped each for itself.
    Wrappers that clip on the server clip what arrives, so that there any codec may be used.
    """
    if isinstance(strategy, _CLIENT) and codec.stateful:
        raise SettingError(
            f"{type(strategy).__name__} clips before compression: a codec that remembers, such as {str(codec)!r}, "
            "would send more; use one without memory, or clip on the server"
        )


def bound(strategy: Strategy) -> float:
    """Return the L2 norm to which decoded updates are clipped; infinity if they are not.

    A lossy codec may return an update longer than the one that the node clipped. To clip it again is a function of
    this update alone, so the sensitivity of the sum stays what the wrapper takes it for.
    """
    return float(strategy.clipping_norm) * (1 + _ROUNDING) if isinstance(strategy, _CLIENT) else math.inf


def seed_noise_from_system() -> None:
    """Seed `numpy.random`, from which flwr draws its noise, so that nobody who knows a run's seed can take it away."""
    np.random.seed()  # noqa: NPY002
