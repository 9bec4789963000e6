"""Hints from a teacher's inner layers: FitNets, Romero et al. 2015, https://arxiv.org/abs/1412.6550."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedpress.common.errors import SettingError, unknown


class Hint(nn.Module):
    """How far a student's layer is from saying what the teacher's says; its regressor is dropped afterwards."""

    def __init__(self, teacher: nn.Module, student: nn.Module, names: str, x: Tensor) -> None:
        """Find the two layers of `names`, TEACHER:STUDENT; `x` are a few inputs."""
        super().__init__()
        theirs, _, ours = names.partition(":")
        self._names = (f"{theirs!r} of the teacher", f"{ours!r} of the student")
        # In tuples, so that neither model becomes a part of this one.
        self._models = ((teacher, _layer(teacher, theirs, "teacher")), (student, _layer(student, ours, "student")))
        with torch.no_grad():
            wanted, found = (self._ask(number, x) for number in (0, 1))
        if wanted.dim() != found.dim() or wanted.dim() not in (2, 4):
            raise SettingError(
                f"hint {names!r}: both layers give pictures, or both rows of numbers; got outputs of shape "
                f"{tuple(wanted.shape[1:])} and {tuple(found.shape[1:])}"
            )
        width, size = found.shape[1], wanted.shape[1]
        self.regressor = nn.Conv2d(width, size, 1) if wanted.dim() == 4 else nn.Linear(width, size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean square of what the student's layer misses, as the regressor sees it."""
        with torch.no_grad():
            wanted = self._ask(0, x)
        found = self._ask(1, x)
        if found.dim() == 4 and found.shape[2:] != wanted.shape[2:]:
            found = nn.functional.adaptive_avg_pool2d(found, (wanted.shape[2], wanted.shape[3]))
        return nn.functional.mse_loss(self.regressor(found), wanted)

    def _ask(self, number: int, x: Tensor) -> Tensor:
        model, layer = self._models[number]
        with _heard(layer) as said:
            model(x)
        output = said[-1] if said else None
        if not isinstance(output, Tensor):
            found = f"gives a {type(output).__name__}" if said else "is passed by no input"
            raise SettingError(f"a hint is of layers that give one tensor: {self._names[number]} {found}")
        return output


def _layer(model: nn.Module, name: str, whose: str) -> nn.Module:
    layers: dict[str, nn.Module] = dict(model.named_modules())
    layers.pop("")
    if name not in layers:
        raise SettingError(unknown(f"layer of the {whose}", name, layers))
    return layers[name]


@contextmanager
def _heard(layer: nn.Module) -> Iterator[list[object]]:
    """Collect what `layer` puts out."""
    said: list[object] = []
    handle = layer.register_forward_hook(lambda _module, _given, output: said.append(output))
    try:
        yield said
    finally:
        handle.remove()
