"""Famous methods by their papers' names and settings, spelled out in stages, as optax spells `adam` out in a chain.

A preset is a function from its settings to a spec of two parts or more; it stands alone, as `stc(0.01)`. Where the
paper packs or codes integers in a way of its own, `ans` stands in for it: it takes fewer bytes.
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

    All have one magnitude, their mean. The paper codes positions in Golomb code, and compresses both directions: give
    this to both.
    """
    return f"ef | topk({p!r}) | ternarise | ans"


def dgc(p: float) -> str:
    """Deep Gradient Compression, Lin et al. 2018, https://arxiv.org/abs/1712.01887: the largest `p` of all values.

    The momentum is 0.9. The paper comes down to p = 0.001 over a warm-up of a few epochs: begin with a larger one.
    """
    return f"dgc(0.9) | topk({p!r}) | ans"


def powersgd(rank: int) -> str:
    """PowerSGD, Vogels et al. 2019, https://arxiv.org/abs/1905.13727, with the error feedback that it needs."""
    return f"ef | powersgd({rank})"


def drive() -> str:
    """DRIVE, Vargaftik et al. 2021, https://arxiv.org/abs/2105.08339: one bit a value, right on average."""
    return "drive | pack"


def eden(bits: int) -> str:
    """EDEN, Vargaftik et al. 2022, https://arxiv.org/abs/2108.08842: `bits` bits a value, right on average.

    `eden(bits) | ans` is slower, and 4 to 6 % smaller with 2 to 6 bits.
    """
    return f"eden({bits}) | pack"


PRESETS: Mapping[str, PresetEntry] = {
    "stc": PresetEntry(stc, ("stc(0.01)",)),
    "dgc": PresetEntry(dgc, ("dgc(0.01)",)),
    "powersgd": PresetEntry(powersgd, ("powersgd(2)",)),
    "drive": PresetEntry(drive, ("drive",)),
    "eden": PresetEntry(eden, ("eden(2)",)),
}
