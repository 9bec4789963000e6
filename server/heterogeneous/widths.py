"""Widths of one model: the server has all of it, each group a share of its channels; averaged by coverage.

Nested slices: Diao et al. 2021, https://arxiv.org/abs/2010.01264; by importance: the channels of the largest norm,
looked at again now and then.
"""

from typing import Any

import numpy as np
from torch import nn

from fedpress.compression import Update
from fedpress.compression.model.channel_axes import channels_of
from fedpress.compression.model.narrow import by_importance, part_of
from fedpress.compression.submodels import Slice
from fedpress.protocol.groups import Groups
from fedpress.server.heterogeneous.model_groups import Evaluate, Fleet, Make


class Widths(Fleet):
    """A fleet whose groups have widths of the run's model."""

    def __init__(self, groups: Groups, clients: int, seed: int, make: Make, evaluate: Evaluate) -> None:
        super().__init__(groups, clients, seed, make, evaluate)
        model: nn.Module = make("")
        self.whole = {name: tensor.cpu().numpy().copy() for name, tensor in model.state_dict().items()}
        self.shown = next((group.name for group in groups.all if group.width == 1), "")
        self._channels = channels_of(model)
        self._orders: list[np.ndarray] = []  # of each kind of channels, the most important first

    def slices(self, round: int, whole: Update) -> dict[str, Slice]:
        if self.groups.slices == "importance" and (round - 1) % self.groups.reorder == 0:
            self._orders = by_importance(self._channels, whole)
        return {group.name: part_of(self._channels, group.width, self._orders) for group in self.groups.all}

    def save(self) -> Any:
        return self._orders

    def resume(self, saved: Any) -> None:
        self._orders = saved
