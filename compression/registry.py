"""Every stage, wrapper and preset by name, each with examples: the one table to add a method to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from fedpress.compression import presets
from fedpress.compression.codec import Stage
from fedpress.compression.stages.identity import Identity
from fedpress.compression.stages.lossless.ans import Ans
from fedpress.compression.stages.lossless.pack import Pack
from fedpress.compression.stages.lossless.quad import Quad
from fedpress.compression.stages.lossless.zstd import Zstd
from fedpress.compression.stages.quantize.bf16 import Bf16
from fedpress.compression.stages.quantize.deadzone import DeadZone
from fedpress.compression.stages.quantize.fp16 import Fp16
from fedpress.compression.stages.quantize.kmeans import KMeans
from fedpress.compression.stages.quantize.qsgd import Qsgd
from fedpress.compression.stages.quantize.sign import Sign
from fedpress.compression.stages.quantize.ternarise import Ternarise
from fedpress.compression.stages.quantize.ternary import Ternary
from fedpress.compression.stages.quantize.uniform import Uniform
from fedpress.compression.stages.sparsify.randk import RandK
from fedpress.compression.stages.sparsify.threshold import Threshold
from fedpress.compression.stages.sparsify.topk import TopK
from fedpress.compression.stages.transform.crosspolytope import CrossPolytope
from fedpress.compression.stages.transform.drive import Drive
from fedpress.compression.stages.transform.eden import Eden
from fedpress.compression.stages.transform.even import Even
from fedpress.compression.stages.transform.hadamard import Hadamard
from fedpress.compression.stages.transform.lowrank import LowRank
from fedpress.compression.stages.transform.powersgd import PowerSgd
from fedpress.compression.wrappers.base import Wrapper
from fedpress.compression.wrappers.error_feedback import ErrorFeedback
from fedpress.compression.wrappers.momentum_correction import MomentumCorrection
from fedpress.compression.wrappers.subspace import SharedSubspace

Made = TypeVar("Made")
Preset = Callable[..., str]  # from its arguments to a spec


@dataclass(frozen=True)
class CodecEntry(Generic[Made]):
    """A stage, a wrapper or a preset that specs can name.

    Parameters
    ----------
    make : type of Stage, type of Wrapper or callable
        The stage, whose fields are the arguments of its name; the wrapper, whose fields but for `inner` are; or the
        preset, a function of them.
    examples : tuple of str
        Specs that use it. The conformance tests run over all of them.
    instead : str
        Why it is not recommended for updates, and what to choose instead; empty if it is recommended.

    Examples
    --------
    >>> STAGES["sign"].examples
    ('sign | pack', 'topk(0.1) | sign | ans')
    >>> WRAPPERS["dgc"].make.__name__
    'MomentumCorrection'
    """

    make: Made
    examples: tuple[str, ...] = ()
    instead: str = ""


_BIASED = "biased: its error is mostly the same in all updates, so that no average removes it: `auto` or `best`"
_DELTAS = "biased: for deltas of the model and files, where it takes the fewest bytes at a small error"
_LATE = "what it leaves out is sent late, and is lost where nodes seldom take part: `auto` or `best`"
_LARGE = "more bytes than `best(noise=...)` of the same error, or a smaller error than updates need: `auto` or `best`"

WRAPPERS: dict[str, CodecEntry[type[Wrapper]]] = {
    "ef": CodecEntry(
        ErrorFeedback,
        (
            "ef | topk(0.05) | ans",
            "ef(0.5) | lowrank(nmse=0.2) | ans",
            "ef | deadzone(nmse=0.1) | ans",
            "ef | uniform(1) | pack",
            "ef | powersgd(2)",
        ),
        _LATE,
    ),
    "subspace": CodecEntry(
        SharedSubspace,
        (
            "subspace(0.2) | crosspolytope(2.0)",
            "subspace(0.1) | even(0.5) | deadzone(nmse=0.3) | ans",
            "subspace(0.5) | fp16",
        ),
    ),
    "dgc": CodecEntry(MomentumCorrection, ("dgc(0.9) | topk(0.05) | ans", "dgc(0.5) | uniform(2) | pack"), _LATE),
}

STAGES: dict[str, CodecEntry[type[Stage]]] = {
    "none": CodecEntry(Identity, ("none",)),
    "fp16": CodecEntry(Fp16, ("fp16", "fp16 | zstd(3)")),
    "bf16": CodecEntry(Bf16, ("bf16", "bf16 | zstd(3)")),
    "threshold": CodecEntry(Threshold, ("threshold(0.01) | ans",), _BIASED),
    "randk": CodecEntry(RandK, ("randk(0.1)", "randk(0.2) | uniform(8) | ans"), _LARGE),
    "topk": CodecEntry(TopK, ("topk(0.01)", "topk(0.1) | fp16 | pack", "topk(1.0)"), _BIASED),
    "uniform": CodecEntry(
        Uniform,
        (
            "uniform(8)",
            "uniform(2)",
            "uniform(1) | pack",
            "topk(0.01) | uniform(4) | ans",
            "topk(0.2) | uniform(16) | zstd(19)",
        ),
        _LARGE,
    ),
    "qsgd": CodecEntry(Qsgd, ("qsgd(4) | ans", "topk(0.1) | qsgd(200) | pack"), _LARGE),
    "ternary": CodecEntry(Ternary, ("ternary | ans", "ternary(clip=2.5) | ans"), _LARGE),
    "sign": CodecEntry(Sign, ("sign | pack", "topk(0.1) | sign | ans"), _BIASED),
    "kmeans": CodecEntry(KMeans, ("kmeans(16) | ans", "topk(0.1) | kmeans(300) | ans"), _BIASED),
    "deadzone": CodecEntry(
        DeadZone,
        (
            "deadzone(step=0.01) | ans",
            "deadzone(nmse=0.05) | ans",
            "deadzone(bits=1.0) | ans",
            "topk(0.1) | deadzone(nmse=0.01) | ans",
        ),
        _DELTAS,
    ),
    "ternarise": CodecEntry(Ternarise, ("topk(0.05) | ternarise | ans", "ternarise | pack"), _BIASED),
    "hadamard": CodecEntry(
        Hadamard, ("hadamard | uniform(4) | pack", "hadamard | fp16", "topk(0.2) | hadamard | uniform(6) | ans")
    ),
    "drive": CodecEntry(Drive, ("drive | pack", "topk(0.2) | drive | ans"), _LARGE),
    "eden": CodecEntry(Eden, ("eden(1) | pack", "eden(4) | pack", "topk(0.2) | eden(8) | ans"), _LARGE),
    "crosspolytope": CodecEntry(
        CrossPolytope,
        ("crosspolytope(0.3)", "crosspolytope(3.0)", "crosspolytope(noise=4.0)", "topk(0.2) | crosspolytope(2.0)"),
    ),
    "even": CodecEntry(Even, ("even(0.5) | lowrank(nmse=0.3) | ans", "even(1.0) | deadzone(nmse=0.1) | ans")),
    "powersgd": CodecEntry(PowerSgd, ("powersgd(1) | zstd(3)", "powersgd(4) | ans"), _BIASED),
    "lowrank": CodecEntry(LowRank, ("lowrank(nmse=0.1) | ans", "lowrank(bytes=3000) | ans"), _DELTAS),
    "pack": CodecEntry(Pack, ("uniform(4) | pack",)),
    "quad": CodecEntry(Quad, ("deadzone(nmse=0.2) | quad | zstd(1)", "uniform(4) | quad")),
    "zstd": CodecEntry(Zstd, ("zstd(3)", "deadzone(nmse=0.3) | zstd(19)")),
    "ans": CodecEntry(Ans, ("uniform(8) | ans",)),
}


PRESETS: dict[str, CodecEntry[Preset]] = {
    "best": CodecEntry(presets.best, ("best", "best(noise=1.0)", "best(nmse=0.1)", "best(bytes=4000)")),
    "fast": CodecEntry(presets.fast, ("fast(nmse=0.1)",), _BIASED),
    "stc": CodecEntry(presets.stc, ("stc(0.01)",), _LATE),
    "dgc": CodecEntry(presets.dgc, ("dgc(0.01)",), _LATE),
    "powersgd": CodecEntry(presets.powersgd, ("powersgd(2)",), _LATE),
    "drive": CodecEntry(presets.drive, ("drive",), _LARGE),
    "eden": CodecEntry(presets.eden, ("eden(2)",), _LARGE),
    "fedpaq": CodecEntry(presets.fedpaq, ("fedpaq(4)",), _LARGE),
    "qsgd": CodecEntry(presets.qsgd, ("qsgd(4)",), _LARGE),
    "terngrad": CodecEntry(presets.terngrad, ("terngrad",), _LARGE),
    "signsgd": CodecEntry(presets.signsgd, ("signsgd",), _BIASED),
    "deepcompression": CodecEntry(presets.deepcompression, ("deepcompression(0.1, 16)",), _BIASED),
}


def examples() -> tuple[str, ...]:
    """Return at least one spec for every name.

    Returns
    -------
    tuple of str
        Specs in normal form or not, each of a working codec.

    Examples
    --------
    >>> "ef | topk(0.05) | ans" in examples()
    True
    """
    tables = (WRAPPERS, STAGES, PRESETS)
    return tuple(spec for table in tables for entry in table.values() for spec in entry.examples)
