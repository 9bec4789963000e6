"""Widths of one model: the server has the whole, each group a share of its channels; averaged by coverage.

Nested slices: Diao et al. 2021, https://arxiv.org/abs/2010.01264; by importance: the channels of the largest norm,
ranked again every few rounds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from fedpress.compression import Update
from fedpress.compression.model.channel_axes import channel_axes_of
from fedpress.compression.model.narrow import by_importance, part_of
from fedpress.compression.submodels import Slice
from fedpress.extensions.mixed_fleet.node_groups import MakeModule, NodeGroups
from fedpress.extensions.mixed_fleet.settings import MixedFleetSettings


class Widths(NodeGroups):
    """Groups whose models are widths of the run's model."""

    disjoint = False

    def __init__(self, settings: MixedFleetSettings, clients: int, seed: int, make: MakeModule) -> None:
        super().__init__(settings, clients, seed, make)
        model: nn.Module = make("")
        self.whole = {name: tensor.cpu().numpy().copy() for name, tensor in model.state_dict().items()}
        self.shown = next((group.name for group in settings.groups if group.width == 1), "")
        self._channels = channel_axes_of(model)
        self._orders: list[np.ndarray] = []  # of each group of channels, the most important first

    def places(self, round: int, model: Update) -> dict[str, Slice]:
        if self.settings.slices == "importance" and (round - 1) % self.settings.reorder == 0:
            self._orders = by_importance(self._channels, model)
        return {group.name: part_of(self._channels, group.width, self._orders) for group in self.settings.groups}

    def dump_state(self) -> Mapping[str, Any]:
        return {"orders": self._orders}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._orders = state["orders"]
