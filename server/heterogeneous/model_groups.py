"""A fleet: which group each node is in, and where each group's model lies in the server's."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy

from fedpress.common.errors import SettingError
from fedpress.compression import Layout, Update
from fedpress.compression.submodels import Slice
from fedpress.compression.updates import representable
from fedpress.protocol.groups import Groups
from fedpress.server.aggregation.aggregate import STREAMING
from fedpress.server.downlink.downlink import Downlink
from fedpress.server.downlink.models import Models

Make = Callable[[str], Any]  # a group's name -> a module for its model; empty for the run's own
Evaluate = Callable[[str, Update], Mapping[str, Any]]


class Fleet(ABC):
    """Groups of nodes, and the model that all of theirs are parts of.

    Parameters
    ----------
    groups : as the run's configuration has them
    clients, seed : of the run; nodes that are dealt out are by these
    make : returns a module that all who need one of a group take turns with
    evaluate : returns what a group's model reaches on the test set, given the group's name and the model
    """

    whole: Update  # the server's model before the first round
    shown: str  # the group whose model is the one that is evaluated; empty if the whole itself is

    def __init__(self, groups: Groups, clients: int, seed: int, make: Make, evaluate: Evaluate) -> None:
        self.groups = groups
        self.make = make
        self.evaluate = evaluate
        self._clients, self._seed = clients, seed
        self._claims: dict[str, str] = {}  # node -> group, of devices that said what they run

    @property
    def names(self) -> tuple[str, ...]:
        """The groups' names."""
        return tuple(group.name for group in self.groups.all)

    @abstractmethod
    def slices(self, round: int, whole: Update) -> dict[str, Slice]:
        """Return where each group's model of round `round` lies in `whole`, the server's model before it."""

    def save(self) -> Any:
        """Return what `resume` needs beside the models."""
        return None

    def resume(self, saved: Any) -> None:
        """Go on from what `save` returned."""
        _ = saved

    def join(self, node: str, said: Mapping[str, object]) -> str:
        """Take in a device that says this of itself; return why it cannot take part, nothing if it can."""
        try:
            self._claims[node] = self.groups.choose(said).name
        except SettingError as error:
            return str(error)
        return ""

    def group(self, node: str) -> str:
        """Return the name of a node's group."""
        if not self.groups.dealt:
            return self._claims[node]
        return self.groups.deal(int(node), self._clients, self._seed).name


def check_strategy(strategy: Strategy) -> None:
    """Raise SettingError if `strategy` looks at whole models, of which a node may have a part."""
    if type(strategy) not in STREAMING:
        there = ", ".join(kind.__name__ for kind in STREAMING)
        raise SettingError(f"groups are averaged by {there}, got {type(strategy).__name__}")


class Grouped(Models):
    """The models of a fleet; `make` returns the downlink of a group, given its name and its model before round 1."""

    def __init__(self, fleet: Fleet, make: Callable[[str, Update], Downlink]) -> None:
        self.layout = Layout.of(fleet.whole)
        self._exact = representable(fleet.whole, self.layout)
        self._fleet = fleet
        self._slices = fleet.slices(1, self.exact)
        self.downlinks = {name: make(name, part.take(self.exact)) for name, part in self._slices.items()}

    @property
    def exact(self) -> Update:
        return self._exact

    @property
    def model(self) -> Update:
        return self.downlinks[self._fleet.shown].model if self._fleet.shown else self.exact

    def group(self, node: str) -> str:
        return self._fleet.group(node)

    def place(self, node: str) -> Slice:
        return self._slices[self.group(node)]

    def advance(self, wanted: Mapping[str, np.ndarray], round: int) -> None:
        self._exact = representable(wanted, self.layout)
        self._slices = self._fleet.slices(round + 1, self.exact)
        for name, part in self._slices.items():
            self.downlinks[name].advance(part.take(self.exact), round)

    def save(self) -> dict[str, Any]:
        return {**super().save(), "whole": self.exact, "fleet": self._fleet.save()}

    def resume(self, saved: Mapping[str, Any], round: int) -> None:
        super().resume(saved, round)
        self._exact = saved["whole"]
        self._fleet.resume(saved["fleet"])
        self._slices = self._fleet.slices(round + 1, self.exact)
