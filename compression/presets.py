"""Published methods under their names, written as chains of stages.

A preset is a function from its arguments to the spec of a whole codec, such as `stc(0.01)`. `ans` replaces the codes of
integers of the papers: it takes fewer bytes.
"""

from fedpress.common.errors import SpecError


def stc(p: float) -> str:
    """Sparse ternary compression, Sattler et al. 2019, https://arxiv.org/abs/1903.02891: the largest share `p`.

    All are sent with their mean magnitude. The paper codes positions in Golomb code, and compresses both directions.

    Examples
    --------
    >>> stc(0.01)
    'ef | topk(0.01) | ternarise | ans'
    """
    return f"ef | topk({p!r}) | ternarise | ans"


def dgc(p: float) -> str:
    """Deep Gradient Compression, Lin et al. 2018, https://arxiv.org/abs/1712.01887: the largest share `p`.

    The momentum is 0.9. The paper lowers p to 0.001 over a warm-up of a few epochs.
    """
    return f"dgc(0.9) | topk({p!r}) | ans"


def powersgd(rank: int) -> str:
    """PowerSGD, Vogels et al. 2019, https://arxiv.org/abs/1905.13727, with error feedback, which it needs."""
    return f"ef | powersgd({rank})"


def drive() -> str:
    """DRIVE, Vargaftik et al. 2021, https://arxiv.org/abs/2105.08339: one bit per value, unbiased."""
    return "drive | pack"


def eden(bits: int) -> str:
    """EDEN, Vargaftik et al. 2022, https://arxiv.org/abs/2108.08842: `bits` bits per value, unbiased.

    `eden(bits) | ans` is slower, and 4 to 6 % smaller with 2 to 6 bits.
    """
    return f"eden({bits}) | pack"


def best(*, noise: float | None = None, nmse: float | None = None, bytes: int | None = None) -> str:
    """For updates of few nodes of many as of all: the fewest bytes of an unbiased code, `noise` its squared error.

    The error is relative to the update's squared norm, in expectation. 3, if not given, is what `speeches`, the least
    tolerant of the measured tasks, bears; `auto` sets it by what a round's updates have in common. `nmse` or `bytes`
    are for models and files: the fewest bytes for that error, or the least error in that many bytes. That is biased,
    and so not recommended for updates.

    Examples
    --------
    >>> best(), best(nmse=0.1)
    ('crosspolytope(noise=3.0)', 'lowrank(nmse=0.1) | ans')
    """
    given = {name: value for name, value in (("noise", noise), ("nmse", nmse), ("bytes", bytes)) if value is not None}
    if len(given) > 1:
        raise SpecError(f"best must be given one of noise, nmse and bytes, got {', '.join(given)}")
    if nmse is None and bytes is None:
        return f"crosspolytope(noise={3.0 if noise is None else noise!r})"
    return f"lowrank(nmse={nmse!r}) | ans" if bytes is None else f"lowrank(bytes={bytes!r}) | ans"


def fast(*, nmse: float) -> str:
    """Fastest for a squared error of `nmse` times the update's squared norm: no low rank, an entropy coder in C."""
    return f"deadzone(nmse={nmse!r}) | quad | zstd(1)"


def fedpaq(bits: int) -> str:
    """FedPAQ, Reisizadeh et al. 2020, https://arxiv.org/abs/1909.13014: QSGD's quantiser on updates.

    A level and its sign have `bits` bits, so there are 2**(bits - 1) - 1 levels.
    """
    if not 2 <= bits <= 16:
        raise SpecError(f"fedpaq's bits must be 2 to 16, got {bits}")
    return f"qsgd({2 ** (bits - 1) - 1}) | ans"


def qsgd(levels: int) -> str:
    """QSGD, Alistarh et al. 2017, https://arxiv.org/abs/1610.02132; `ans` in place of the paper's Elias code."""
    return f"qsgd({levels}) | ans"


def terngrad() -> str:
    """TernGrad, Wen et al. 2017, https://arxiv.org/abs/1705.07878, clipped at its 2.5 standard deviations."""
    return "ternary(clip=2.5) | ans"


def signsgd() -> str:
    """signSGD, Bernstein et al. 2018, https://arxiv.org/abs/1802.04434, with a scale per tensor.

    The paper's server takes the majority of signs; here the strategy aggregates.
    """
    return "sign | pack"


def deepcompression(fraction: float, k: int) -> str:
    """Deep Compression, Han et al. 2016, https://arxiv.org/abs/1510.00149: prune, then share `k` values.

    The paper retrains after each step, which is not possible with an update.
    """
    return f"topk({fraction!r}) | kmeans({k}) | ans"
