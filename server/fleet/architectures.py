"""Architectures side by side, each averaged with its like: Lin et al. 2020, https://arxiv.org/abs/2006.07242.

What they teach each other is distillation's part.
"""

from collections.abc import Mapping

from torch import nn

from fedpress.compression import Update
from fedpress.compression.groups import Groups
from fedpress.compression.slices import Slice
from fedpress.server.fleet.fleet import Evaluate, Fleet


class Architectures(Fleet):
    """A fleet whose groups have these `models`, by name; the whole has the tensors of all of them."""

    def __init__(
        self, groups: Groups, clients: int, seed: int, evaluate: Evaluate, models: Mapping[str, nn.Module]
    ) -> None:
        super().__init__(groups, clients, seed, evaluate)
        weights = {group: model.state_dict() for group, model in models.items()}
        self._slices = {
            group: Slice({name: f"{group}/{name}" for name in tensors}, {}) for group, tensors in weights.items()
        }
        self.whole = {f"{group}/{name}": t.numpy() for group, tensors in weights.items() for name, t in tensors.items()}
        self.shown = self.names[0]

    def slices(self, round: int, whole: Update) -> dict[str, Slice]:
        return self._slices
