"""The models of a federation as its nodes hold them: one, or one for each group of nodes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fedpress.compression import Layout, Update
from fedpress.compression.submodels import Slice
from fedpress.compression.updates import representable
from fedpress.protocol.messages import NodeDescription
from fedpress.server.downlink.downlink import Downlink


class ModelGroups(ABC):
    """Groups of nodes, each with a model that is a part of the server's."""

    names: tuple[str, ...]  # of the groups
    shown: str  # the group whose model is evaluated; empty for the whole model
    asks: bool  # whether a node's group depends on its description, so that nodes must be queried
    disjoint: bool  # whether no two groups' models share a tensor of the server's

    @abstractmethod
    def group(self, node: str) -> str:
        """Return the name of the group that node `node` is in."""

    @abstractmethod
    def places(self, round: int, model: Update) -> Mapping[str, Slice]:
        """Return where each group's model of round `round` lies in `model`, the server's before that round."""

    @abstractmethod
    def module(self, name: str) -> Any:
        """Return a torch module for a group's model; the same object is shared by all callers."""

    def join(self, node: str, description: NodeDescription) -> str:
        """Assign a node to a group; return the reason why it cannot take part, empty if it can."""
        return ""


class Models(ABC):
    """The server's model, and the models that it sends to nodes."""

    layout: Layout  # of the server's model
    downlinks: Mapping[str, Downlink]  # of each group, by its name
    groups: ModelGroups | None = None  # None if all nodes have the same model
    places: Mapping[str, Slice] = {}  # where each group's model lies in the server's

    @property
    @abstractmethod
    def exact(self) -> Update:
        """The server's own model w, which strategies see."""

    @property
    @abstractmethod
    def model(self) -> Update:
        """The model that is evaluated, as nodes can reconstruct it."""

    @abstractmethod
    def group(self, node: str) -> str:
        """Return the name of the group of node `node`."""

    @abstractmethod
    def advance(self, wanted: Update, round: int) -> None:
        """Advance to `wanted`, the server's exact model after `round`."""

    @property
    def by_group(self) -> dict[str, Update]:
        """The model of each group as its nodes can reconstruct it; empty if all nodes have the same model."""
        return {name: downlink.model for name, downlink in self.downlinks.items()} if self.groups else {}

    def of(self, node: str) -> Downlink:
        """Return the downlink of the model that node `node` has."""
        return self.downlinks[self.group(node)]

    @property
    def lasting(self) -> set[bytes]:
        """Versions that are kept whether or not a node holds them."""
        return {version for d in self.downlinks.values() for version in (d.version, d.initial) if version}

    def retain(self, held: Collection[bytes], needed: set[bytes]) -> None:
        """Delete the versions that no node holds any more and that are not `needed`."""
        for downlink in self.downlinks.values():
            downlink.versions.retain(held, lasting={downlink.version, downlink.initial, *needed} - {b""})

    def sync(self) -> None:
        """Write the stored models to the disk."""
        for downlink in self.downlinks.values():
            downlink.versions.sync()

    def save(self) -> dict[str, Any]:
        """Return the state for `resume`."""
        return {"groups": {name: downlink.save() for name, downlink in self.downlinks.items()}}

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raise SettingError if the state that `save` returned is of a model with another layout."""
        for name, downlink in self.downlinks.items():
            downlink.check(saved["groups"][name])

    def resume(self, saved: Mapping[str, Any], round: int) -> None:
        """Restore the state that `save` returned after `round`."""
        for name, downlink in self.downlinks.items():
            downlink.resume(saved["groups"][name], round)


class SingleModel(Models):
    """All nodes have the same model."""

    def __init__(self, downlink: Downlink) -> None:
        self.downlinks = {"": downlink}
        self.layout = downlink.layout

    @property
    def exact(self) -> Update:
        return self.downlinks[""].exact

    @property
    def model(self) -> Update:
        return self.downlinks[""].model

    def group(self, node: str) -> str:
        return ""

    def advance(self, wanted: Update, round: int) -> None:
        self.downlinks[""].advance(wanted, round)


class GroupedModels(Models):
    """Groups of nodes have models that are parts of the server's.

    Parameters
    ----------
    groups : ModelGroups
        The groups.
    initial : Update
        The server's model before round 1.
    make : callable
        Returns the downlink of a group, given its name and its model before round 1.
    """

    groups: ModelGroups

    def __init__(self, groups: ModelGroups, initial: Update, make: Callable[[str, Update], Downlink]) -> None:
        self.groups = groups
        self.layout = Layout.of(initial)
        self._exact = representable(initial, self.layout)
        self.places = groups.places(1, self.exact)
        self.downlinks = {name: make(name, place.take(self.exact)) for name, place in self.places.items()}

    @property
    def exact(self) -> Update:
        return self._exact

    @property
    def model(self) -> Update:
        return self.downlinks[self.groups.shown].model if self.groups.shown else self.exact

    def group(self, node: str) -> str:
        return self.groups.group(node)

    def advance(self, wanted: Update, round: int) -> None:
        self._exact = representable(wanted, self.layout)
        self.places = self.groups.places(round + 1, self.exact)
        for name, place in self.places.items():
            self.downlinks[name].advance(place.take(self.exact), round)

    def save(self) -> dict[str, Any]:
        return {**super().save(), "whole": self.exact}

    def resume(self, saved: Mapping[str, Any], round: int) -> None:
        super().resume(saved, round)
        self._exact = saved["whole"]
        self.places = self.groups.places(round + 1, self.exact)
