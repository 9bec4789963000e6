"""Densities of layers: Erdos-Renyi kernels, Evci et al. 2020, https://arxiv.org/abs/1911.11134."""

from collections.abc import Sequence

from fedpress.compression import Layout, Update
from fedpress.compression.layout import TensorSpec
from fedpress.compression.weight_masks import WeightMasks, prunable


def counts(tensors: Sequence[TensorSpec], pruned: float) -> dict[str, int]:
    """Return the number of unpruned weights of each tensor if the share `pruned` of all weights is pruned.

    A tensor's density is proportional to the sum of its axes over their product, so that small tensors are pruned
    least; one whose density would exceed 1 is not pruned.
    """
    total = (1 - pruned) * sum(tensor.size for tensor in tensors)
    dense: set[str] = set()
    while True:
        rest = [t for t in tensors if t.name not in dense]
        remaining = total - sum(t.size for t in tensors if t.name in dense)
        # A density is scale * sum / product, so a tensor's count is scale * sum.
        scale = remaining / max(1, sum(sum(t.shape) for t in rest))
        saturated = {t.name for t in rest if scale * sum(t.shape) >= t.size}
        if not saturated:
            break
        dense |= saturated
    return {t.name: t.size if t.name in dense else max(1, round(scale * sum(t.shape))) for t in tensors}


def share_pruned(model: Update) -> float:
    """Return the share of the prunable weights that are pruned."""
    layout = Layout.of(model)
    masks = WeightMasks.of(model, layout)
    total = sum(tensor.size for tensor in prunable(layout))
    return 1 - sum(int(masks.mask(tensor).sum()) for tensor in prunable(layout)) / max(1, total)
