"""Famous methods by their papers' names and settings, spelled out in stages, as optax spells `adam` out in a chain.

A preset is a function from its settings to a spec of two parts or more; it stands alone, as `stc(0.01)`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


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


PRESETS: Mapping[str, PresetEntry] = {
    "stc": PresetEntry(stc, ("stc(0.01)",)),
}
