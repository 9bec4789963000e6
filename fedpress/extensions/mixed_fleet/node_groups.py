"""Groups of nodes as a run's settings define them."""

from collections.abc import Callable, Mapping
from typing import Any

from fedpress.common.errors import SettingError
from fedpress.compression import Update
from fedpress.extensions.mixed_fleet.settings import MixedFleetSettings
from fedpress.protocol.messages import NodeDescription
from fedpress.server.downlink.models import ModelGroups

MakeModule = Callable[[str], Any]  # a group's name -> a module for its model; empty for the whole model


class NodeGroups(ModelGroups):
    """Groups of nodes, and the server's model, which contains the models of all groups.

    Parameters
    ----------
    settings : MixedFleetSettings
        The groups.
    clients, seed : int
        Number of virtual nodes, and seed of the run, by which they are assigned to groups.
    make : MakeModule
        Returns the module of a group.
    """

    whole: Update  # the server's model before the first round

    def __init__(self, settings: MixedFleetSettings, clients: int, seed: int, make: MakeModule) -> None:
        self.settings = settings
        self.names = tuple(group.name for group in settings.groups)
        self.asks = not settings.assigned
        self._clients, self._seed = clients, seed
        self._make = make
        self._joined: dict[str, str] = {}  # node -> group, of devices that reported their model

    def join(self, node: str, description: NodeDescription) -> str:
        try:
            self._joined[node] = self.settings.choose(description.width, description.model).name
        except SettingError as error:
            return str(error)
        return ""

    def group(self, node: str) -> str:
        if self.asks:
            return self._joined[node]
        return self.settings.assign(int(node), self._clients, self._seed).name

    def module(self, name: str) -> Any:
        return self._make(name)

    def dump_state(self) -> Mapping[str, Any]:
        """Return the state for `load_state`, without the models."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `dump_state` returned."""
