"""Hints from a teacher's inner layers: FitNets, Romero et al. 2015, https://arxiv.org/abs/1412.6550."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedpress.common.errors import SettingError, unknown


class Hint(nn.Module):
    """The loss between a teacher's and a student's layer; its regressor is discarded after training."""

    def __init__(self, teacher: nn.Module, student: nn.Module, names: str, x: Tensor) -> None:
        """Find the two layers of `names`, TEACHER:STUDENT; `x` are a few inputs."""
        super().__init__()
        theirs, _, ours = names.partition(":")
        self._names = (f"{theirs!r} of the teacher", f"{ours!r} of the student")
        # In tuples, so that the models are not submodules.
        self._models = ((teacher, _layer(teacher, theirs, "teacher")), (student, _layer(student, ours, "student")))
        with torch.no_grad():
            expected, found = (self._output(number, x) for number in (0, 1))
        if expected.dim() != found.dim() or expected.dim() not in (2, 4):
            raise SettingError(
                f"hint {names!r}: outputs of both layers must be images, or both vectors; got shapes "
                f"{tuple(expected.shape[1:])} and {tuple(found.shape[1:])}"
            )
        width, size = found.shape[1], expected.shape[1]
        self.regressor = nn.Conv2d(width, size, 1) if expected.dim() == 4 else nn.Linear(width, size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean squared error of the student's layer after the regressor."""
        with torch.no_grad():
            expected = self._output(0, x)
        found = self._output(1, x)
        if found.dim() == 4 and found.shape[2:] != expected.shape[2:]:
            found = nn.functional.adaptive_avg_pool2d(found, (expected.shape[2], expected.shape[3]))
        return nn.functional.mse_loss(self.regressor(found), expected)

    def _output(self, number: int, x: Tensor) -> Tensor:
        model, layer = self._models[number]
        with _outputs(layer) as outputs:
            model(x)
        output = outputs[-1] if outputs else None
        if not isinstance(output, Tensor):
            found = f"gives a {type(output).__name__}" if outputs else "is passed by no input"
            raise SettingError(f"layers of a hint must give one tensor: {self._names[number]} {found}")
        return output


def _layer(model: nn.Module, name: str, whose: str) -> nn.Module:
    layers: dict[str, nn.Module] = dict(model.named_modules())
    layers.pop("")
    if name not in layers:
        raise SettingError(unknown(f"layer of the {whose}", name, layers))
    return layers[name]


@contextmanager
def _outputs(layer: nn.Module) -> Iterator[list[object]]:
    """Collect the outputs of `layer`."""
    outputs: list[object] = []
    handle = layer.register_forward_hook(lambda _module, _given, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()
