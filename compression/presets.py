"""Famous methods by their papers' names and settings, spelled out in stages, as optax spells `adam` out in a chain.

A preset is a function from its settings to a spec of two parts or more; it stands alone, as `stc(0.01)`. Where the
paper packs or codes integers in a way of its own, `ans` stands in for it: it takes fewer bytes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedpress.common.errors import SpecError


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


def best(*, nmse: float | None = None, bytes: int | None = None) -> str:
    """Take the fewest bytes we know of, for a squared error of `nmse` of the update's squared norm, or in `bytes`."""
    if (nmse is None) == (bytes is None):
        raise SpecError(f"best takes one of nmse and bytes, got nmse={nmse}, bytes={bytes}")
    return f"lowrank(nmse={nmse!r}) | ans" if bytes is None else f"lowrank(bytes={bytes!r}) | ans"


def fast(*, nmse: float) -> str:
    """Take next to no time: no low rank, and an entropy coder in C."""
    return f"deadzone(nmse={nmse!r}) | quad | zstd(1)"


def fedpaq(bits: int) -> str:
    """FedPAQ, Reisizadeh et al. 2020, https://arxiv.org/abs/1909.13014: QSGD's quantiser on what local steps changed.

    A level and its sign have `bits` bits, so there are 2**(bits - 1) - 1 levels. Periodic averaging and partial
    participation are the federation's part.
    """
    if not 2 <= bits <= 16:
        raise SpecError(f"fedpaq has 2 to 16 bits, got {bits}")
    return f"qsgd({2 ** (bits - 1) - 1}) | ans"


def qsgd(levels: int) -> str:
    """QSGD, Alistarh et al. 2017, https://arxiv.org/abs/1610.02132; `ans` in place of the paper's Elias code."""
    return f"qsgd({levels}) | ans"


def terngrad() -> str:
    """TernGrad, Wen et al. 2017, https://arxiv.org/abs/1705.07878, clipped at its 2.5 standard deviations."""
    return "ternary(clip=2.5) | ans"


def signsgd() -> str:
    """signSGD, Bernstein et al. 2018, https://arxiv.org/abs/1802.04434, with a scale, so that means mean something.

    The paper's server takes the majority of signs and a learning rate; its sum is here left to the strategy.
    """
    return "sign | pack"


def deepcompression(fraction: float, k: int) -> str:
    """Deep Compression, Han et al. 2016, https://arxiv.org/abs/1510.00149: prune, share `k` values a tensor, code.

    The paper retrains after each step, which an update cannot; `ans` stands in for its Huffman code and its gaps.
    """
    return f"topk({fraction!r}) | kmeans({k}) | ans"


PRESETS: Mapping[str, PresetEntry] = {
    "best": PresetEntry(best, ("best(nmse=0.1)", "best(bytes=4000)")),
    "fast": PresetEntry(fast, ("fast(nmse=0.1)",)),
    "stc": PresetEntry(stc, ("stc(0.01)",)),
    "dgc": PresetEntry(dgc, ("dgc(0.01)",)),
    "powersgd": PresetEntry(powersgd, ("powersgd(2)",)),
    "drive": PresetEntry(drive, ("drive",)),
    "eden": PresetEntry(eden, ("eden(2)",)),
    "fedpaq": PresetEntry(fedpaq, ("fedpaq(4)",)),
    "qsgd": PresetEntry(qsgd, ("qsgd(4)",)),
    "terngrad": PresetEntry(terngrad, ("terngrad",)),
    "signsgd": PresetEntry(signsgd, ("signsgd",)),
    "deepcompression": PresetEntry(deepcompression, ("deepcompression(0.1, 16)",)),
}
