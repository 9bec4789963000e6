"""What a federation cannot be asked for at once: said before anything is sent."""

import math
from collections.abc import Mapping, Sequence

from flwr.serverapp.strategy import Strategy

from fedpress.common.errors import SettingError
from fedpress.common.settings import require
from fedpress.compression import Codec, SpecError
from fedpress.protocol.messages import LOSSLESS
from fedpress.server.aggregation import privacy
from fedpress.server.downlink.downlink import parse_down
from fedpress.server.heterogeneous.model_groups import Fleet, check_strategy
from fedpress.server.sparse.mask_updates import Sparsifier
from fedpress.server.strategy.flower_strategies import has_trees


def check(
    strategy: Strategy,
    *,
    lossless: bool,
    exclude: Sequence[str],
    personal: Sequence[str],
    stateless: bool,
    down: str,
    catch_up: float,
    distils: bool,
    tunes: bool,
    sparsify: Sparsifier | None,
    fleet: Fleet | None,
    loses_nothing_down: bool,
    keeps: bool,
) -> None:
    """Raise SettingError if these do not go together.

    `keeps` is whether rounds are to be kept, as a checkpoint or a record.
    """
    name = type(strategy).__name__
    if has_trees(strategy) and (not lossless or keeps or distils or tunes or personal or sparsify):
        raise SettingError(
            f"{name} has trees for models, which are passed through: up and down must be {LOSSLESS!r}, with no "
            "checkpoint, no distil, no tune, no on_round, nothing personal and no sparsify"
        )
    if distils and privacy.is_private(strategy):
        raise SettingError(f"distil learns from updates before {name} adds its noise: leave it out")
    for key, patterns in (("exclude", exclude), ("personal", personal)):
        if isinstance(patterns, str):
            raise SettingError(f"{key} is a sequence of patterns, got the text {patterns!r}: write ({patterns!r},)")
    if personal and stateless:
        raise SettingError("nodes keep their personal tensors, and stateless ones keep nothing: leave one out")
    if catch_up != 1:
        _check_catch_up(catch_up, parse_down(down), stateless=stateless)
    _check_teaching({"distil": distils, "tune": tunes}, personal, sparsify)
    if tunes and loses_nothing_down:
        raise SettingError(
            "tune aims lossy deltas, and here are none: name a codec for down, and shared_initial if stateless"
        )
    if fleet:
        check_strategy(strategy)
        for named, wanted in (("personal", bool(personal)), ("sparsify", sparsify is not None), ("tune", tunes)):
            if wanted:
                raise SettingError(f"{named} is for the one model that all nodes have: leave it out with groups")


def _check_catch_up(catch_up: float, down: Codec, *, stateless: bool) -> None:
    require(0 < catch_up < math.inf, "catch_up", "above 0", catch_up)
    if stateless:
        raise SettingError("nodes that keep nothing have nothing to catch up from: leave catch_up out if stateless")
    try:
        down.aimed(step=1.0)
    except SpecError as error:
        raise SettingError(f"catch_up makes steps coarser, and down {str(down)!r} has none: leave it out") from error


def _check_teaching(teaches: Mapping[str, bool], personal: Sequence[str], sparsify: Sparsifier | None) -> None:
    for named in (name for name, on in teaches.items() if on):
        if personal:
            raise SettingError(
                f"{named} works on whole models, of which the server has no personal tensors: leave it out"
            )
        if sparsify:
            raise SettingError(f"{named} changes every weight, and what sparsify gave up stays zero: leave one out")
