"""The models of a federation as its nodes hold them: one, or one for each group of nodes."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from fedpress.compression import Layout, Update
from fedpress.compression.submodels import Slice
from fedpress.server.downlink.downlink import Downlink


class Models(ABC):
    """What the server has, and what it sends to whom.

    `layout` is that of the server's model, `downlinks` are the groups' by their names.
    """

    layout: Layout
    downlinks: Mapping[str, Downlink]

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

    def place(self, node: str) -> Slice | None:
        """Return where the node's model lies in `exact`; None if it is all of it."""
        return None

    @abstractmethod
    def advance(self, wanted: Mapping[str, np.ndarray], round: int) -> None:
        """Go on to `wanted`, the server's exact model after `round`."""

    def of(self, node: str) -> Downlink:
        """Return the downlink of the model that node `node` has."""
        return self.downlinks[self.group(node)]

    @property
    def lasting(self) -> set[bytes]:
        """Versions that are needed whoever holds them."""
        return {version for d in self.downlinks.values() for version in (d.version, d.initial) if version}

    def retain(self, held: Collection[bytes], needed: set[bytes]) -> None:
        """Give up the versions that no node holds any more, and that are not `needed` either."""
        for downlink in self.downlinks.values():
            downlink.versions.retain(held, lasting={downlink.version, downlink.initial, *needed} - {b""})

    def save(self) -> dict[str, Any]:
        """Return what `resume` needs."""
        return {"groups": {name: downlink.save() for name, downlink in self.downlinks.items()}}

    def resume(self, saved: Mapping[str, Any], round: int) -> None:
        """Go on from what `save` returned when `round` was over."""
        for name, downlink in self.downlinks.items():
            downlink.resume(saved["groups"][name], round)


class One(Models):
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

    def advance(self, wanted: Mapping[str, np.ndarray], round: int) -> None:
        self.downlinks[""].advance(wanted, round)
