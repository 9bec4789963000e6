"""What a federation cannot be asked for at once: said before anything is sent."""

from collections.abc import Sequence

from flwr.serverapp.strategy import Strategy

from fedpress.compression.errors import SettingError
from fedpress.compression.message import LOSSLESS
from fedpress.server import privacy
from fedpress.server.fleet.fleet import Fleet, check_strategy
from fedpress.server.growing import grows
from fedpress.server.sparse.masks import Sparsifier


def check(
    strategy: Strategy,
    *,
    lossless: bool,
    exclude: Sequence[str],
    personal: Sequence[str],
    stateless: bool,
    distils: bool,
    tunes: bool,
    sparsify: Sparsifier | None,
    fleet: Fleet | None,
    keeps: bool,
) -> None:
    """Raise SettingError if these do not go together.

    `keeps` is whether rounds are to be kept, as a checkpoint or a record.
    """
    name = type(strategy).__name__
    if grows(strategy) and (not lossless or keeps or distils or tunes or personal or sparsify):
        raise SettingError(
            f"{name} has trees for models, which grow: they travel losslessly, with up and down {LOSSLESS!r}, no "
            "checkpoint, no distil, no tune, no on_round, nothing personal and no sparsify"
        )
    if distils and privacy.is_private(strategy):
        raise SettingError(f"distil learns from updates before {name} adds its noise: leave it out")
    for key, patterns in (("exclude", exclude), ("personal", personal)):
        if isinstance(patterns, str):
            raise SettingError(f"{key} is a sequence of patterns, got the text {patterns!r}: write ({patterns!r},)")
    if personal and stateless:
        raise SettingError("nodes keep their personal tensors, and stateless ones keep nothing: leave one out")
    for named, on in (("distil", distils), ("tune", tunes)):
        if personal and on:
            raise SettingError(
                f"{named} works on whole models, of which the server has no personal tensors: leave it out"
            )
        if sparsify and on:
            raise SettingError(f"{named} changes every weight, and what sparsify gave up stays zero: leave one out")
    if fleet:
        check_strategy(strategy)
        for named, wanted in (("personal", bool(personal)), ("sparsify", sparsify is not None), ("tune", tunes)):
            if wanted:
                raise SettingError(f"{named} is for the one model that all nodes have: leave it out with groups")
    if sparsify and sparsify.settings.sparsify == "feddst" and privacy.is_private(strategy):
        raise SettingError(f"feddst has nodes vote by their gradients, to which {name} adds no noise: take gradual")
