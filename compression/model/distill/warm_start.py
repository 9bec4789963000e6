"""A warm start from the teacher's own layers: DistilBERT, Sanh et al. 2019, https://arxiv.org/abs/1910.01108."""

import torch
from torch import nn


def warm_start(student: nn.Module, teacher: nn.Module) -> list[str]:
    """Copy the tensors of `teacher` that have the name and shape of one of `student`'s; return their names."""
    theirs = teacher.state_dict()
    taken = []
    with torch.no_grad():
        for name, tensor in student.state_dict().items():
            if name in theirs and theirs[name].shape == tensor.shape:
                tensor.copy_(theirs[name])
                taken.append(name)
    return taken
