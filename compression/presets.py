"""Famous methods by their papers' names and settings, spelled out in stages, as optax spells `adam` out in a chain.

A preset is a function from its settings to a spec of two parts or more; it stands alone, as `stc(0.01)`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedpress.compression.errors import SpecError


@dataclass(frozen=True)
class PresetEntry:
    """What a preset's name stands for, and an example or more of it."""

    expand: Callable[..., str]
    examples: tuple[str, ...]


def stc(p: float) -> str:
    """Sparse ternary compression, Sattler et al. 2019, https://arxiv.org/abs/1903.02891: the largest `p` of all values.

    Their magnitudes are averaged over the whole update in the paper, over each tensor here; positions are coded by
    context instead of in Golomb code, which is never larger.
    """
    return f"ef | topk({p!r}) | uniform(1) | ans"


def best(*, nmse: float | None = None, bytes: int | None = None) -> str:
    """Take the fewest bytes we know of, for a squared error of `nmse` of the update's squared norm, or in `bytes`."""
    if (nmse is None) == (bytes is None):
        raise SpecError(f"best takes one of nmse and bytes, got nmse={nmse}, bytes={bytes}")
    return f"lowrank(nmse={nmse!r}) | ans" if bytes is None else f"lowrank(bytes={bytes!r}) | ans"


def fast(*, nmse: float) -> str:
    """Take next to no time: no low rank, and an entropy coder in C."""
    return f"deadzone(nmse={nmse!r}) | quad | zstd(1)"


PRESETS: Mapping[str, PresetEntry] = {
    "best": PresetEntry(best, ("best(nmse=0.1)", "best(bytes=4000)")),
    "fast": PresetEntry(fast, ("fast(nmse=0.1)",)),
    "stc": PresetEntry(stc, ("stc(0.01)",)),
}
