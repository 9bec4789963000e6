"""Several architectures, each averaged over the nodes that have it: Lin et al. 2020.

https://arxiv.org/abs/2006.07242
"""

from fedpress.compression import Update
from fedpress.compression.submodels import Slice
from fedpress.extensions.mixed_fleet.node_groups import MakeModule, NodeGroups
from fedpress.extensions.mixed_fleet.settings import MixedFleetSettings


class Architectures(NodeGroups):
    """Groups whose models share no tensor; the server's model has the tensors of all of them."""

    disjoint = True

    def __init__(self, settings: MixedFleetSettings, clients: int, seed: int, make: MakeModule) -> None:
        super().__init__(settings, clients, seed, make)
        weights = {
            group: {name: tensor.cpu().numpy().copy() for name, tensor in make(group).state_dict().items()}
            for group in self.names
        }
        self._places = {
            group: Slice({name: f"{group}/{name}" for name in tensors}, {}) for group, tensors in weights.items()
        }
        self.whole = {f"{group}/{name}": array for group, tensors in weights.items() for name, array in tensors.items()}
        self.shown = self.names[0]

    def places(self, round: int, model: Update) -> dict[str, Slice]:
        return self._places
