"""How many weights of each layer stay live: Erdos-Renyi kernels, Evci et al. 2020, https://arxiv.org/abs/1911.11134."""

from collections.abc import Sequence

from fedpress.compression import Layout, Update
from fedpress.compression.layout import TensorSpec
from fedpress.compression.weight_masks import WeightMasks, prunable


def counts(tensors: Sequence[TensorSpec], dead: float) -> dict[str, int]:
    """Return how many weights of each tensor are live if the share `dead` of all of them is not.

    A tensor's density goes by the sum of its axes over their product, so small ones, in which every weight matters, are
    thinned least; one that would be denser than it can be stays whole.
    """
    wanted = (1 - dead) * sum(tensor.size for tensor in tensors)
    whole: set[str] = set()
    while True:
        rest = [t for t in tensors if t.name not in whole]
        left = wanted - sum(t.size for t in tensors if t.name in whole)
        scale = left / max(1, sum(sum(t.shape) for t in rest))  # a density is sum / product, so its count the sum
        full = {t.name for t in rest if scale * sum(t.shape) >= t.size}
        if not full:
            break
        whole |= full
    return {t.name: t.size if t.name in whole else max(1, round(scale * sum(t.shape))) for t in tensors}


def share_dead(model: Update) -> float:
    """Return the share of the weights that are dead, of those that may be."""
    layout = Layout.of(model)
    masks = WeightMasks.of(model, layout)
    total = sum(tensor.size for tensor in prunable(layout))
    return 1 - sum(int(masks.mask(tensor).sum()) for tensor in prunable(layout)) / max(1, total)
