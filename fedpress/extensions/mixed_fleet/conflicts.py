"""The federations that cannot have groups of nodes with models of their own."""

from flwr.serverapp.strategy import Strategy

from fedpress.common.errors import SettingError
from fedpress.extensions.mixed_fleet.settings import MixedFleetSettings
from fedpress.server.aggregation.aggregate import STREAMING


def check_federation(
    settings: MixedFleetSettings, strategy: Strategy, *, stateless: bool, shared_initial: bool
) -> None:
    """Raise SettingError if a federation cannot have these groups; it can always have none.

    A strategy that looks at whole models cannot aggregate parts of them. Slices by importance take channels from a
    node between rounds, and the state that belongs to them is lost.
    """
    if not settings.enabled:
        return
    if type(strategy) not in STREAMING:
        names = ", ".join(kind.__name__ for kind in STREAMING)
        raise SettingError(f"groups are averaged by {names}, got {type(strategy).__name__}")
    if settings.slices != "nested" and (shared_initial or not stateless):
        raise SettingError(f"{settings.slices} slices need stateless true and shared-initial false")
