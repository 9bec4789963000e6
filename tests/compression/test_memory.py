"""Memory of encoding and decoding in addition to the update: at most 4 times its bytes, 8 for a hostile frame."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from fedpress.common.rng import derive
from fedpress.compression import FrameError, Layout, parse
from fedpress.compression.frame import DTYPES, put_varint, write_frame
from fedpress.compression.registry import examples

TABLES = 4 << 20  # bytes that tables and blocks take, whatever the update's size
# Encoders that take more, measured: fixed-width packing, k-means, which sorts, and sparsifiers that keep nearly all.
MORE = {"uniform(16)": 5.0, "kmeans": 5.0, "pack": 5.0, "topk(1.0)": 6.0, "threshold": 5.0}


def update(rows: int = 1500) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    low = rng.standard_normal((rows, 12)) @ rng.standard_normal((12, 700))
    matrix = (low + rng.standard_t(3, (rows, 700))) * rng.lognormal(0, 1, (1, 700)) * 0.01
    return {"w": matrix.astype(np.float32), "b": rng.normal(size=rows).astype(np.float32), "n": np.array(7)}


def peak(work: Callable[[], object]) -> int:
    """Bytes that `work` takes at most, beyond what there was."""
    tracemalloc.start()
    try:
        work()
    except FrameError:
        pass
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


@pytest.mark.parametrize("spec", examples())
def test_a_codec_takes_a_few_times_the_update(spec: str) -> None:
    one = update()
    layout, codec = Layout.of(one), parse(spec)
    state = codec.init(layout)
    times = next((most for name, most in MORE.items() if name in spec), 4.0) + 2.0 * codec.stateful
    frame, _ = codec.encode(one, state, derive(0))  # what is only made once is made now
    assert peak(lambda: codec.encode(one, state, derive(0))) <= times * layout.nbytes + TABLES
    assert peak(lambda: codec.decode(frame, layout)) <= 4 * layout.nbytes + TABLES


def claims(codes: range, count: int, tail: bytes) -> np.ndarray:
    head = bytearray([codes[0]])
    put_varint(head, count)
    return np.frombuffer(bytes(head) + tail, np.uint8)


@pytest.mark.parametrize("stage", ["ans", "pack", "zstd(3)"])
def test_decoding_a_hostile_frame_takes_bounded_memory(stage: str) -> None:
    """Sixty-four streams of a few bytes, each of which claims all of the allowed memory."""
    layout = Layout.of(update(300))
    spec = f"uniform(8) | {stage}"
    code = DTYPES.index(np.dtype(np.int8))
    one_token = bytes([1, 5, 1, 2, 0b00000100, 0b00100000])  # a table of one token, which costs no bits
    tails = {
        "ans": [bytes([1]) + one_token[1:], bytes([3, 0, 0, 0, 0, 1, 47, 0, 0]), bytes([0]), bytes(9)],
        "pack": [bytes([0]), bytes([1]), bytes(9)],
        "zstd(3)": [bytes([0x00, 0x58, 0x03, 0, 0, 0, 1]), bytes([0xA4, 0, 0, 0, 0x80, 0xB2]) + bytes(9)],
    }[stage]
    for count in (layout.max_nbytes, layout.max_nbytes // 64, layout.size, layout.size // 2):
        for tail in tails:
            streams = {f"s{i}": claims(range(code, code + 1), count, tail) for i in range(64)}
            frame = write_frame(spec, layout.digest, b"", streams)
            with pytest.raises(FrameError):
                parse(spec).decode(frame, layout)
            assert peak(lambda frame=frame: parse(spec).decode(frame, layout)) <= 8 * layout.nbytes + TABLES


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["fast(nmse=0.1)", "topk(0.01) | ans", "best(nmse=0.3)"])
def test_a_hundred_million_parameters(spec: str) -> None:
    rng = np.random.default_rng(0)
    low = rng.standard_normal((10_000, 4), np.float32) @ rng.standard_normal((4, 10_000), np.float32)
    low += rng.standard_normal((10_000, 10_000), np.float32)
    one = {"w": low}
    layout, codec = Layout.of(one), parse(spec)
    frame, _ = codec.encode(one, codec.init(layout), derive(0))
    back = codec.decode(frame, layout)["w"]
    assert back.shape == low.shape
    error = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(low, back, strict=True))
    energy = sum(float(np.square(a, dtype=np.float64).sum()) for a in low)
    assert error <= energy * {"f": 0.1, "b": 0.3, "t": 1.0}[spec[0]]
