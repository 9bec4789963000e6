"""Which tensors are meant: patterns of names, and the words `head` and `norm` for kinds of layers."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from fedpress.common.errors import SettingError
from fedpress.compression import Layout
from fedpress.compression.layout import TensorSpec

_RUNNING = {"running_mean", "running_var", "num_batches_tracked"}


def chosen(layout: Layout, patterns: Sequence[str]) -> set[str]:
    """Return the names of the tensors that `patterns` mean.

    Raises
    ------
    SettingError
        If one of them means no tensor, or together they mean all.
    """
    names: set[str] = set()
    for pattern in patterns:
        meant = WORDS[pattern](layout) if pattern in WORDS else _matching(layout, pattern)
        if not meant:
            raise SettingError(f"personal {pattern!r} means no tensor of the model: {_some(layout)}")
        names |= meant
    if names and len(names) == len(layout.tensors):
        raise SettingError(f"personal leaves some tensors to be learned together, got {', '.join(patterns)}")
    return names


def head(layout: Layout) -> set[str]:
    """Return the last layer that has tensors."""
    last = _layer(layout.tensors[-1].name)
    return {t.name for t in layout.tensors if _layer(t.name) == last} if last else {layout.tensors[-1].name}


def norm(layout: Layout) -> set[str]:
    """Return all normalising layers: those that keep statistics, or scale by a vector as long as their bias."""
    layers: dict[str, dict[str, TensorSpec]] = {}
    for tensor in layout.tensors:
        layers.setdefault(_layer(tensor.name), {})[tensor.name.rpartition(".")[2]] = tensor
    return {t.name for tensors in layers.values() if _is_norm(tensors) for t in tensors.values()}


WORDS: Mapping[str, Callable[[Layout], set[str]]] = {"head": head, "norm": norm}


def _is_norm(tensors: Mapping[str, TensorSpec]) -> bool:
    if tensors.keys() & _RUNNING:
        return True
    weight, bias = tensors.get("weight"), tensors.get("bias")
    return weight is not None and bias is not None and len(weight.shape) == 1 and weight.shape == bias.shape


def _layer(name: str) -> str:
    """Return the layer of a tensor; what torch's parametrisations make a weight of is their layer's."""
    return name.rpartition(".")[0].partition(".parametrizations.")[0]


def _matching(layout: Layout, pattern: str) -> set[str]:
    return {tensor.name for tensor in layout.tensors if fnmatchcase(tensor.name, pattern)}


def _some(layout: Layout) -> str:
    names = [tensor.name for tensor in layout.tensors]
    return f"it has {', '.join(names[:3])}{' ... ' + names[-1] if len(names) > 3 else ''}"
