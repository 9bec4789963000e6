"""Every stage, wrapper and preset by name, each with examples: the one table to add a method to."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedpress.common.errors import SettingError
from fedpress.compression.codec import Stage
from fedpress.compression.presets import PRESETS
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
from fedpress.compression.stages.transform.hadamard import Hadamard
from fedpress.compression.stages.transform.lowrank import LowRank
from fedpress.compression.stages.transform.powersgd import PowerSgd
from fedpress.compression.wrappers.base import Wrapper
from fedpress.compression.wrappers.error_feedback import ErrorFeedback
from fedpress.compression.wrappers.momentum_correction import MomentumCorrection


@dataclass(frozen=True)
class CodecEntry:
    """A stage that specs can name.

    Parameters
    ----------
    make : type of Stage
        The stage. The arguments of its name are its fields.
    examples : tuple of str
        Specs that use it. The conformance tests run over all of them.

    Examples
    --------
    >>> STAGES["sign"].examples
    ('sign | pack', 'topk(0.1) | sign | ans')
    """

    make: type[Stage]
    examples: tuple[str, ...]


@dataclass(frozen=True)
class WrapperEntry:
    """A codec with memory around a pipeline that specs can name.

    Parameters
    ----------
    make : type of Wrapper
        The wrapper. The arguments of its name are its fields but for `inner`, which is the pipeline.
    examples : tuple of str
        Specs that use it. The conformance tests run over all of them.

    Examples
    --------
    >>> WRAPPERS["dgc"].make.__name__
    'MomentumCorrection'
    """

    make: type[Wrapper]
    examples: tuple[str, ...]


WRAPPERS: Mapping[str, WrapperEntry] = {
    "ef": WrapperEntry(
        ErrorFeedback,
        (
            "ef | topk(0.05) | ans",
            "ef(0.5) | lowrank(nmse=0.2) | ans",
            "ef | deadzone(nmse=0.1) | ans",
            "ef | uniform(1) | pack",
            "ef | powersgd(2)",
        ),
    ),
    "dgc": WrapperEntry(MomentumCorrection, ("dgc(0.9) | topk(0.05) | ans", "dgc(0.5) | uniform(2) | pack")),
}

STAGES: dict[str, CodecEntry] = {
    "none": CodecEntry(Identity, ("none",)),
    "fp16": CodecEntry(Fp16, ("fp16", "fp16 | zstd(3)")),
    "bf16": CodecEntry(Bf16, ("bf16", "bf16 | zstd(3)")),
    "threshold": CodecEntry(Threshold, ("threshold(0.01) | ans",)),
    "randk": CodecEntry(RandK, ("randk(0.1)", "randk(0.2) | uniform(8) | ans")),
    "topk": CodecEntry(TopK, ("topk(0.01)", "topk(0.1) | fp16 | pack", "topk(1.0)")),
    "uniform": CodecEntry(
        Uniform,
        (
            "uniform(8)",
            "uniform(2)",
            "uniform(1) | pack",
            "topk(0.01) | uniform(4) | ans",
            "topk(0.2) | uniform(16) | zstd(19)",
        ),
    ),
    "qsgd": CodecEntry(Qsgd, ("qsgd(4) | ans", "topk(0.1) | qsgd(200) | pack")),
    "ternary": CodecEntry(Ternary, ("ternary | ans", "ternary(clip=2.5) | ans")),
    "sign": CodecEntry(Sign, ("sign | pack", "topk(0.1) | sign | ans")),
    "kmeans": CodecEntry(KMeans, ("kmeans(16) | ans", "topk(0.1) | kmeans(300) | ans")),
    "deadzone": CodecEntry(
        DeadZone,
        (
            "deadzone(step=0.01) | ans",
            "deadzone(nmse=0.05) | ans",
            "deadzone(bits=1.0) | ans",
            "topk(0.1) | deadzone(nmse=0.01) | ans",
        ),
    ),
    "ternarise": CodecEntry(Ternarise, ("topk(0.05) | ternarise | ans", "ternarise | pack")),
    "hadamard": CodecEntry(
        Hadamard, ("hadamard | uniform(4) | pack", "hadamard | fp16", "topk(0.2) | hadamard | uniform(6) | ans")
    ),
    "drive": CodecEntry(Drive, ("drive | pack", "topk(0.2) | drive | ans")),
    "eden": CodecEntry(Eden, ("eden(1) | pack", "eden(4) | pack", "topk(0.2) | eden(8) | ans")),
    "crosspolytope": CodecEntry(
        CrossPolytope,
        ("crosspolytope(0.3)", "crosspolytope(3.0)", "crosspolytope(noise=4.0)", "topk(0.2) | crosspolytope(2.0)"),
    ),
    "powersgd": CodecEntry(PowerSgd, ("powersgd(1) | zstd(3)", "powersgd(4) | ans")),
    "lowrank": CodecEntry(LowRank, ("lowrank(nmse=0.1) | ans", "lowrank(bytes=3000) | ans")),
    "pack": CodecEntry(Pack, ("uniform(4) | pack",)),
    "quad": CodecEntry(Quad, ("deadzone(nmse=0.2) | quad | zstd(1)", "uniform(4) | quad")),
    "zstd": CodecEntry(Zstd, ("zstd(3)", "deadzone(nmse=0.3) | zstd(19)")),
    "ans": CodecEntry(Ans, ("uniform(8) | ans",)),
}


def register(stage: type[Stage], *, examples: tuple[str, ...] = ()) -> None:
    """Register a stage: specs name it by the name of its class in lower case.

    Parameters
    ----------
    stage : type
        A frozen dataclass, a subclass of `Stage`, whose fields are its arguments in a spec.
    examples : tuple of str, optional
        Specs in which it is used.

    Raises
    ------
    SettingError
        If another stage or wrapper has the name.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Unchanged(Identity):
    ...     pass
    >>> register(Unchanged)
    >>> "unchanged" in codecs()
    True
    >>> del STAGES["unchanged"]
    """
    name = stage.__name__.lower()
    known = WRAPPERS.get(name) or STAGES.get(name)
    if known is not None and known.make is not stage:
        raise SettingError(f"a stage must have a new name, got {name!r}, which is that of {known.make.__qualname__}")
    STAGES[name] = CodecEntry(stage, examples)


def codecs() -> tuple[str, ...]:
    """Return the names that a spec can be made of.

    Returns
    -------
    tuple of str
        Names of wrappers, stages and presets, each once: "powersgd" is a preset where it stands alone, else a stage.

    Examples
    --------
    >>> {"ef", "topk", "stc"} <= set(codecs())
    True
    """
    return tuple(dict.fromkeys((*WRAPPERS, *STAGES, *PRESETS)))


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
