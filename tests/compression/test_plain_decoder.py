"""docs/explanation/frame.md is complete: a decoder written from it alone gives the same bits as ours."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.common.rng import derive
from fedpress.compression import FrameError, Layout, UpdateError, parse
from fedpress.compression.frame import read_frame, shorten
from fedpress.compression.registry import examples

HERE = Path(__file__).parent
found = importlib.util.spec_from_file_location("plain_decoder", HERE / "plain_decoder.py")
plain = importlib.util.module_from_spec(found)
found.loader.exec_module(plain)

GOLDEN = sorted(HERE.glob("golden/*.fp"))


def rows_of(layout: Layout) -> list[tuple[str, tuple[int, ...], str]]:
    return [(tensor.name, tensor.shape, tensor.dtype) for tensor in layout.tensors]


def same(frame: bytes, layout: Layout, wanted: dict[str, np.ndarray]) -> None:
    read = read_frame(frame)
    for form in (frame, shorten(frame)):
        back = plain.decode(form, rows_of(layout), known=(read.spec, read.base))
        assert list(back) == list(wanted)
        for name, array in wanted.items():
            assert back[name].dtype == array.dtype
            np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_frames_are_read_by_the_independent_decoder(path: Path) -> None:
    with np.load(path.with_suffix(".npz")) as file:
        wanted = {name: np.asarray(file[name]) for name in file.files}
    same(path.read_bytes(), Layout.of(wanted), wanted)


@pytest.mark.parametrize("spec", examples())
@settings(max_examples=6)
@given(seed=st.integers(0, 2**32), wide=st.integers(1, 90), data=st.data())
def test_other_updates_are_read_by_the_independent_decoder(
    spec: str, seed: int, wide: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    scale = data.draw(st.sampled_from([1e-20, 0.01, 1e4]))
    few = rng.standard_normal((70, 3)) @ rng.standard_normal((3, wide)) + 0.1 * rng.standard_t(3, (70, wide))
    update = {
        "matrix": (few * scale * rng.lognormal(0, 1, (70, 1))).astype(np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "half": rng.normal(size=17).astype(np.float16),
        "filters": (rng.normal(size=(9, 2, 3, 3)) * scale).astype(np.float64),
        "mask": rng.random(5) < 0.5,
        "count": np.array(seed),
    }
    layout, codec = Layout.of(update), parse(spec)
    try:
        frame, _ = codec.encode(update, codec.init(layout), derive(seed))
    except UpdateError:
        return
    same(frame, layout, codec.decode(frame, layout))


@pytest.mark.parametrize("spec", ["uniform(8) | ans", "lowrank(nmse=0.001) | ans"])
def test_many_lanes(spec: str) -> None:
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((300, 40)) @ rng.standard_normal((40, 700)) * rng.lognormal(0, 1, (1, 700))
    update = {"w": matrix.astype(np.float32)}
    layout, codec = Layout.of(update), parse(spec)
    frame, _ = codec.encode(update, {}, derive(0))
    same(frame, layout, codec.decode(frame, layout))


def test_side_information_makes_frames_smaller_and_is_named() -> None:
    """Rows and columns that were active in the last broadcast are so again: the first vectors have their contexts."""
    rng = np.random.default_rng(4)
    rows, columns = rng.lognormal(0, 1, (90, 1)), rng.lognormal(0, 1, (1, 900))

    def one() -> dict[str, np.ndarray]:
        matrix = rng.standard_normal((90, 6)) @ rng.standard_normal((6, 900)) * rows * columns
        return {"w": matrix.astype(np.float32), "z": np.zeros((9, 9), np.float32), "b": np.ones(3, np.float32)}

    side, update = one(), one()
    layout = Layout.of(update)
    for spec in ("best(nmse=0.03)", "ef | lowrank(nmse=0.03) | ans"):
        codec = parse(spec)
        plain_frame, _ = codec.encode(update, codec.init(layout), derive(0))
        frame, _ = codec.encode(update, codec.init(layout), derive(0), side=side)
        assert len(frame) < 0.95 * len(plain_frame)
        wanted = codec.decode(frame, layout, side=side)
        back = plain.decode(frame, rows_of(layout), layout.flatten(side)[0])
        for name, array in wanted.items():
            np.testing.assert_array_equal(back[name], array)
        for wrong in (None, update):
            with pytest.raises(FrameError, match="needs the update"):
                codec.decode(frame, layout, side=wrong)
    # A codec that has no use for it sends nothing of it.
    for spec in ("uniform(8) | ans", "fast(nmse=0.1)", "none"):
        codec = parse(spec)
        frame, _ = codec.encode(update, {}, derive(0), side=side)
        assert frame == codec.encode(update, {}, derive(0))[0]
        codec.decode(frame, layout)
