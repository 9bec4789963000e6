"""Coarser deltas for nodes that missed rounds."""

from fedpress.common.errors import SettingError
from fedpress.compression import SpecError
from fedpress.extensions.catch_up.settings import CatchUpSettings
from fedpress.server.extension import BuildContext, Extension, FederationTerms, Property


class CatchUp(Extension):
    """Multiplies the quantizer's step of deltas to nodes that missed rounds.

    Parameters
    ----------
    settings : CatchUpSettings
        The factor.

    Examples
    --------
    >>> CatchUp(CatchUpSettings(factor=2.0)).late_delta_step()
    2.0
    """

    name = "catch_up"
    settings: CatchUpSettings
    needs = frozenset({Property.NODE_STATE})

    def __init__(self, settings: CatchUpSettings) -> None:
        self.settings = settings

    def conflicts(self, federation: FederationTerms) -> None:
        try:
            federation.down.aimed(step=1.0)
        except SpecError as error:
            raise SettingError(
                f"catch_up makes quantizer steps coarser, and down {str(federation.down)!r} has none: leave it out"
            ) from error

    def late_delta_step(self) -> float:
        return self.settings.factor


def build(settings: CatchUpSettings, _: BuildContext) -> CatchUp:
    """Return the extension that `settings` describe."""
    return CatchUp(settings)
