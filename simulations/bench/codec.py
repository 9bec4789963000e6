"""`bench codec`: compares codecs on recorded updates, in one process."""

import math
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fedpress.common.rng import derive
from fedpress.compression import Codec, Layout, Stage, Update, parse
from fedpress.compression.entropy import matrix_coder, row_coder
from fedpress.compression.entropy.context_classes import entropy_bits
from fedpress.compression.frame import read_frame
from fedpress.compression.kernels import factor_pairs
from fedpress.compression.registry import PRESETS
from fedpress.compression.stages.lossless.ans import Ans
from fedpress.compression.stages.quantize.deadzone import DeadZone
from fedpress.compression.stages.quantize.qsgd import Qsgd
from fedpress.compression.stages.quantize.ternary import Ternary
from fedpress.compression.stages.quantize.uniform import Uniform
from fedpress.compression.stages.transform.lowrank import LowRank
from fedpress.compression.wrappers.named import Preset

ERRORS = (0.3, 0.1, 0.03, 0.01)  # nmse
PLAIN = ("none", "fp16", "bf16", "topk(0.01) | ans", "deadzone(nmse=0.1) | pack", "deadzone(nmse=0.1) | ans")
BEST = tuple(f"{name}(nmse={nmse})" for name in ("best", "fast") for nmse in ERRORS)


@dataclass(frozen=True)
class CodecMeasurement:
    """One codec on one update."""

    spec: str
    bytes: int
    bits: float  # per parameter
    nmse: float
    cosine: float
    encode: float  # MB of float32 per second
    decode: float
    encode_memory: float  # peak beyond the update, over the update's bytes
    decode_memory: float
    gaussian: float  # bits per parameter above the rate-distortion bound of independent normal numbers
    laplacian: float  # the same for Laplacian numbers, by Shannon's lower bound


def default_specs() -> tuple[str, ...]:
    """Return every preset's examples, and a few more specs."""
    presets = [spec for entry in PRESETS.values() for spec in entry.examples]
    return tuple(dict.fromkeys((*PLAIN, *BEST, *(spec for spec in presets if "bytes=" not in spec))))


def bench_codec(
    updates: Sequence[tuple[str, Update, Update | None]],
    specs: Sequence[str],
    *,
    repeats: int,
    note: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Measure every codec on every update; return for each update its rows."""
    result = []
    for name, update, side in updates:
        rows = []
        for spec in specs:
            note(f"{name}: {spec}")
            rows.append(measure(spec, update, repeats))
            if side is not None and "lowrank" in expanded(spec):
                rows.append(measure(spec, update, repeats, side))
        entry: dict[str, Any] = {"update": name, "parameters": Layout.of(update).size}
        entry["codecs"] = [asdict(row) for row in rows]
        entry["ans"] = entropy_ratios(update)
        result.append(entry)
    return result


def expanded(spec: str) -> str:
    """Return the spec with presets replaced by their stages."""
    codec = parse(spec)
    return str(codec.inner) if isinstance(codec, Preset) else spec


def measure(spec: str, update: Update, repeats: int, side: Update | None = None) -> CodecMeasurement:
    """Measure `spec` on `update`: the fastest time of `repeats`, and memory in a separate run."""
    codec, layout = parse(spec), Layout.of(update)
    wanted = layout.flatten(update)[0]
    encode = decode = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        frame = _encode(codec, update, layout, side)
        middle = time.perf_counter()
        back = codec.decode(frame, layout, side=side)
        end = time.perf_counter()
        encode, decode = min(encode, middle - start), min(decode, end - middle)
    tracemalloc.start()
    _encode(codec, update, layout, side)
    encode_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    codec.decode(frame, layout, side=side)
    decode_peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    got = layout.flatten(back)[0]
    bits, error = 8 * len(frame) / layout.size, nmse(wanted, got)
    variance = float(np.square(wanted, dtype=np.float64).mean())
    megabytes = layout.nbytes / 1e6
    return CodecMeasurement(
        spec if side is None else f"{spec}, with side",
        len(frame),
        bits,
        error,
        cosine(wanted, got),
        megabytes / encode,
        megabytes / decode,
        encode_peak / layout.nbytes,
        decode_peak / layout.nbytes,
        bits - gaussian_bound(error),
        bits - laplacian_bound(wanted, variance * error),
    )


def _encode(codec: Codec, update: Update, layout: Layout, side: Update | None = None) -> bytes:
    return codec.encode(update, codec.init(layout), derive(0, "bench"), side=side)[0]


def nmse(wanted: np.ndarray, got: np.ndarray) -> float:
    """Return the squared error over the squared norm."""
    return float(np.square(wanted - got, dtype=np.float64).sum() / np.square(wanted, dtype=np.float64).sum())


def cosine(wanted: np.ndarray, got: np.ndarray) -> float:
    """Return the cosine of the angle between the two; 0 if one is zero."""
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else 0.0


def gaussian_bound(error: float) -> float:
    """Return the rate-distortion function of a normal number at this nmse, bits."""
    return max(0.0, -0.5 * math.log2(error)) if error > 0 else math.inf


def laplacian_bound(values: np.ndarray, distortion: float) -> float:
    """Return Shannon's lower bound for a Laplacian number of the mean magnitude of `values`, bits.

    Its rate-distortion function under squared error has no closed form; h(X) - h(N(0, D)) bounds it from below, and
    is tight for small distortion.
    """
    scale = float(np.abs(values).mean(dtype=np.float64))
    if distortion <= 0:
        return math.inf
    return max(0.0, math.log2(2 * math.e * scale) - 0.5 * math.log2(2 * math.pi * math.e * distortion))


def entropy_ratios(update: Update) -> dict[str, float]:
    """Return bytes of `ans` over the order-zero entropy of its symbols, and two more ratios.

    These are the bytes of top-k's positions over log2 C(n, k), and those of low rank's vectors with adaptive contexts
    of their columns over explicit contexts of rows and columns.
    """
    layout = Layout.of(update)
    out = {}
    values = layout.flatten(update)[0]
    stages: dict[str, Stage] = {
        "deadzone(bits=1.0)": DeadZone(bits=1.0),
        "uniform(4)": Uniform(4),
        "uniform(8)": Uniform(8),
        "qsgd(4)": Qsgd(4),
        "ternary": Ternary(),
    }
    for name, stage in stages.items():
        symbols = stage.encode({"values": values}, layout, derive(0))["symbols"]
        coded = Ans().encode({"symbols": symbols}, layout, derive(0))["symbols"].nbytes
        counts = np.unique(symbols, return_counts=True)[1]
        out[name] = coded * 8 / max(1.0, float(entropy_bits(counts)))
    frame = read_frame(_encode(parse("topk(0.01) | ans"), update, layout))
    places = frame.streams["mask" if "mask" in frame.streams else "gap"].nbytes
    n, k = layout.size, max(1, round(0.01 * layout.size))
    choices = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)
    out["topk(0.01) places"] = places * 8 / choices
    streams = LowRank(nmse=0.1).encode({"values": values}, layout, derive(0))
    vectors = factor_pairs.shapes(streams["rank"], layout)
    if vectors:
        plain = len(matrix_coder.encode(streams["factors"], vectors))
        out["vectors, history over scales"] = len(row_coder.encode(streams["factors"], vectors)) / plain
    return out
