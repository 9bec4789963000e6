"""Tensors by patterns of their names, or by the words `head` and `norm` for kinds of layers."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from fedpress.common.errors import SettingError
from fedpress.compression import Layout
from fedpress.compression.layout import TensorSpec

_RUNNING = {"running_mean", "running_var", "num_batches_tracked"}


def match_tensors(layout: Layout, patterns: Sequence[str]) -> set[str]:
    """Return the names of the tensors that match any of the patterns.

    Raises
    ------
    SettingError
        If a pattern matches no tensor, or together they match all.
    """
    names: set[str] = set()
    for pattern in patterns:
        matching = WORDS[pattern](layout) if pattern in WORDS else _matching(layout, pattern)
        if not matching:
            raise SettingError(f"tensors must match those of the model, got {pattern!r}: {_some(layout)}")
        names |= matching
    if names and len(names) == len(layout.tensors):
        raise SettingError(f"tensors must leave some to be learned together, got {', '.join(patterns)}")
    return names


def head_tensors(layout: Layout) -> set[str]:
    """Return the names of the tensors of the last layer."""
    last = _layer(layout.tensors[-1].name)
    return {t.name for t in layout.tensors if _layer(t.name) == last} if last else {layout.tensors[-1].name}


def norm_tensors(layout: Layout) -> set[str]:
    """Return the names of the tensors of normalising layers: with statistics, or a weight of the shape of the bias."""
    layers: dict[str, dict[str, TensorSpec]] = {}
    for tensor in layout.tensors:
        layers.setdefault(_layer(tensor.name), {})[tensor.name.rpartition(".")[2]] = tensor
    return {t.name for tensors in layers.values() if _is_norm(tensors) for t in tensors.values()}


WORDS: Mapping[str, Callable[[Layout], set[str]]] = {"head": head_tensors, "norm": norm_tensors}


def _is_norm(tensors: Mapping[str, TensorSpec]) -> bool:
    if tensors.keys() & _RUNNING:
        return True
    weight, bias = tensors.get("weight"), tensors.get("bias")
    return weight is not None and bias is not None and len(weight.shape) == 1 and weight.shape == bias.shape


def _layer(name: str) -> str:
    """Return the name of a tensor's layer, that of the parametrised one for tensors of torch's parametrisations."""
    return name.rpartition(".")[0].partition(".parametrizations.")[0]


def _matching(layout: Layout, pattern: str) -> set[str]:
    return {tensor.name for tensor in layout.tensors if fnmatchcase(tensor.name, pattern)}


def _some(layout: Layout) -> str:
    names = [tensor.name for tensor in layout.tensors]
    return f"it has {', '.join(names[:3])}{' ... ' + names[-1] if len(names) > 3 else ''}"
