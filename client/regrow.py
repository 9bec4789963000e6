"""Which dead weights had better live again: Evci et al. 2020, https://arxiv.org/abs/1911.11134."""

import numpy as np
import torch
from torch import nn

from fedpress.client.sparse import dead
from fedpress.client.training import Examples, loss_of

_EXAMPLES, _BATCH = 512, 64  # that tell the gradients, and how many at a time


def regrown(model: nn.Module, examples: Examples, share: float, device: str) -> dict[str, bytes]:
    """Return the dead weights of each tensor that a node would have back, as packed bits.

    They are those of the largest gradients, as many as `share` of the tensor's live ones.
    """
    model.eval()  # statistics stay as training left them
    model.zero_grad(set_to_none=True)
    count = min(len(examples.x), _EXAMPLES)
    for first in range(0, count, _BATCH):
        part = slice(first, min(first + _BATCH, count))
        loss_of(model(examples.x[part].to(device)), examples.y[part].to(device)).backward()  # type: ignore[no-untyped-call]
    wanted = {}
    for name, parameter in model.named_parameters():
        mask = dead(parameter)
        if parameter.grad is None or not mask.any():
            continue
        back = min(int(share * int((~mask).sum())), int(mask.sum()))
        size = torch.where(mask, parameter.grad.abs(), -1.0).flatten().cpu().numpy()
        bits = np.zeros(size.size, np.uint8)
        bits[np.argsort(-size, kind="stable")[:back]] = 1
        wanted[name] = np.packbits(bits).tobytes()
    model.zero_grad(set_to_none=True)
    return wanted
