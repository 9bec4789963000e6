"""Architectures side by side, each averaged with its like: Lin et al. 2020, https://arxiv.org/abs/2006.07242.

What they teach each other is distillation's part.
"""

from fedpress.compression import Update
from fedpress.compression.submodels import Slice
from fedpress.protocol.groups import Groups
from fedpress.server.heterogeneous.model_groups import Evaluate, Fleet, Make


class Architectures(Fleet):
    """A fleet whose groups have models of their own; the whole has the tensors of all of them."""

    def __init__(self, groups: Groups, clients: int, seed: int, make: Make, evaluate: Evaluate) -> None:
        super().__init__(groups, clients, seed, make, evaluate)
        weights = {
            group: {name: tensor.cpu().numpy().copy() for name, tensor in make(group).state_dict().items()}
            for group in self.names
        }
        self._slices = {
            group: Slice({name: f"{group}/{name}" for name in tensors}, {}) for group, tensors in weights.items()
        }
        self.whole = {f"{group}/{name}": array for group, tensors in weights.items() for name, array in tensors.items()}
        self.shown = self.names[0]

    def slices(self, round: int, whole: Update) -> dict[str, Slice]:
        return self._slices
