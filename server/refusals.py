"""What a federation cannot be asked for at once: said before anything is sent."""

from collections.abc import Sequence

from flwr.serverapp.strategy import Strategy

from fedpress.compression.errors import SettingError
from fedpress.compression.message import LOSSLESS
from fedpress.server import privacy
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
    sparsify: Sparsifier | None,
    keeps: bool,
) -> None:
    """Raise SettingError if these do not go together.

    `keeps` is whether rounds are to be kept, as a checkpoint or a record.
    """
    name = type(strategy).__name__
    if grows(strategy) and (not lossless or keeps or distils or personal or sparsify):
        raise SettingError(
            f"{name} has trees for models, which grow: they travel losslessly, with up and down {LOSSLESS!r}, no "
            "checkpoint, no distil, no on_round, nothing personal and no sparsify"
        )
    if distils and privacy.is_private(strategy):
        raise SettingError(f"distil learns from updates before {name} adds its noise: leave it out")
    for key, patterns in (("exclude", exclude), ("personal", personal)):
        if isinstance(patterns, str):
            raise SettingError(f"{key} is a sequence of patterns, got the text {patterns!r}: write ({patterns!r},)")
    if personal and stateless:
        raise SettingError("nodes keep their personal tensors, and stateless ones keep nothing: leave one out")
    if personal and distils:
        raise SettingError("distil learns from whole models, of which the server has no personal tensors: leave it out")
    if sparsify and distils:
        raise SettingError("distil teaches every weight, and those that sparsify gave up stay zero: leave one out")
    if sparsify and sparsify.settings.sparsify == "feddst" and privacy.is_private(strategy):
        raise SettingError(f"feddst has nodes vote by their gradients, to which {name} adds no noise: take gradual")
