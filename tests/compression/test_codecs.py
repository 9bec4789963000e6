"""Laws of every codec, run over the registry's examples: a stage that is added there is tested by all of them."""

import dataclasses
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

import fedpress
from fedpress.common.errors import SettingError
from fedpress.common.rng import derive
from fedpress.compression import FrameError, Layout, SpecError, Streams, UpdateError, codecs, parse, third_party
from fedpress.compression.codec import CodecFaultError
from fedpress.compression.conformance import check_state, check_text, check_update
from fedpress.compression.frame import FrameHead, has_base, read_frame, restore, shorten
from fedpress.compression.pipeline import Pipeline
from fedpress.compression.registry import STAGES, WRAPPERS, examples
from fedpress.compression.stages.identity import Identity

SPECS = examples()
WRAPPED = [spec for name in ("ef", "dgc") for spec in WRAPPERS[name].examples]  # with residuals
GOLDEN = Path(__file__).parent / "golden"
CRC = slice(3, 7)


def pipeline(spec: str) -> Pipeline:
    """Return what is within the presets and wrappers."""
    codec = parse(spec)
    while not isinstance(codec, Pipeline):
        codec = codec.inner  # type: ignore[attr-defined]
    return codec


floats = st.sampled_from([np.float32, np.float16, np.float64])
others = st.sampled_from([np.int64, np.int32, np.uint8, np.bool_])
shapes = nps.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)


@st.composite
def updates(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Tensors of every shape, scale and dtype; some zero, some all the same, some with holes in their memory."""
    update = {}
    for name in draw(st.lists(st.sampled_from([*"abcdef", "bn.running_var"]), unique=True, min_size=1, max_size=5)):
        shape = draw(shapes)
        if draw(st.booleans()):
            array = np.asarray(draw(nps.arrays(draw(others), shape)))
        else:
            rng = np.random.default_rng(draw(st.integers(0, 2**32)))
            scale = draw(st.sampled_from([0.0, 1e-40, 1e-20, 1e-3, 1.0, 1e4]))
            array = (rng.standard_t(2, shape) * scale).clip(-6e4, 6e4).astype(draw(floats))
            if draw(st.booleans()):
                array = np.full(shape, array.flat[0] if array.size else 0, array.dtype)
        if array.ndim == 2 and draw(st.booleans()):
            array = array.T[::-1].T
        update[name] = np.asarray(array)
    return update


def nmse(wanted: np.ndarray, got: np.ndarray) -> float:
    wanted = wanted.astype(np.float64)
    energy = np.square(wanted).sum()
    return float(np.square(wanted - got).sum() / energy) if energy else float(np.square(got).sum())


def sample(n: int = 40_000, seed: int = 0) -> dict[str, np.ndarray]:
    """An update like a real one: heavy tails, rows of different scale."""
    rng = np.random.default_rng(seed)
    rows = n // 100
    matrix = rng.standard_t(3, (rows, 99)) * rng.lognormal(0, 1, (rows, 1)) * 0.01
    return {"w": matrix.astype(np.float32), "b": (rng.normal(size=rows) * 0.01).astype(np.float32), "n": np.array(7)}


def test_every_name_has_an_example() -> None:
    used = {part.split("(")[0].strip() for spec in SPECS for part in spec.split("|")}
    assert used == set(codecs()) == set(fedpress.codecs())


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_survives_the_round_trip(spec: str) -> None:
    assert str(parse(spec)) == spec
    check_text(parse(spec))
    assert str(parse(spec.replace(" ", ""))) == spec


@pytest.mark.parametrize("spec", SPECS)
@given(update=updates())
def test_every_codec_decodes_its_frames(spec: str, update: dict[str, np.ndarray]) -> None:
    if not check_update(parse(spec), update):  # beyond float32, or too few bits
        assert any(target in spec for target in ("nmse", "bits", "bytes"))


@pytest.mark.parametrize("spec", [s for s in SPECS if all(stage.lossless for stage in pipeline(s).stages)])
@given(update=updates())
def test_lossless_codecs_lose_nothing(spec: str, update: dict[str, np.ndarray]) -> None:
    layout = Layout.of(update)
    back = parse(spec).decode(parse(spec).encode(update, {}, derive(0))[0], layout)
    for name, array in update.items():
        rounded = array.dtype == np.float64 and name != "bn.running_var"
        wanted = array.astype(np.float32).astype(array.dtype) if rounded else array
        np.testing.assert_array_equal(back[name], wanted)


def test_batch_norm_statistics_do_not_affect_the_error_of_weights() -> None:
    """The change of a variance is far larger than that of weights, whose error is measured without it."""
    update = sample()
    frame, _ = parse("deadzone(nmse=0.1) | ans").encode(update, {}, derive(0))
    noisy = {**update, "1.running_var": np.full(16, 100, np.float32)}
    layout = Layout.of(noisy)
    codec = parse("deadzone(nmse=0.1) | ans")
    back = codec.decode(codec.encode(noisy, {}, derive(0))[0], layout)
    plain = codec.decode(frame, Layout.of(update))
    assert all(np.array_equal(back[name], plain[name]) for name in update)
    np.testing.assert_array_equal(back["1.running_var"], noisy["1.running_var"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_statistics_that_are_not_finite_are_refused_at_both_ends(bad: float) -> None:
    update = {"w": np.ones(4, np.float32), "1.running_var": np.ones(4, np.float32)}
    layout = Layout.of(update)
    with pytest.raises(UpdateError, match="running_var"):
        parse("none").encode({**update, "1.running_var": np.full(4, bad, np.float32)}, {}, derive(0))
    with pytest.raises(FrameError, match="running_var"):
        layout.unflatten(np.ones(4, np.float32), np.full(4, bad, np.float32).view(np.uint8))


@pytest.mark.parametrize("spec", SPECS)
def test_a_state_has_the_same_arrays_from_the_start(spec: str) -> None:
    check_state(parse(spec), sample())


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec not in WRAPPERS["subspace"].examples])
def test_a_pipeline_is_its_stages_by_hand(spec: str) -> None:
    codec = parse(spec)
    update = sample()
    layout = Layout.of(update)
    values, exact = layout.flatten(update)
    streams = {"values": values, "exact": exact}
    for stage in pipeline(spec).stages:
        streams = stage.encode(streams, layout, derive(0))
    frame, _ = codec.encode(update, codec.init(layout), derive(0))
    read = read_frame(frame).streams
    assert read.keys() == streams.keys()
    for name, array in streams.items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("spec", WRAPPED)
def test_sent_plus_residual_is_the_update(spec: str) -> None:
    """Over many rounds, and over rounds whose frames are lost. With momentum every round's velocity is wanted."""
    codec = parse(spec)
    layout = Layout.of(sample())
    state = codec.init(layout)
    wanted, sent = np.zeros(layout.size), np.zeros(layout.size)
    for number in range(12):
        update = sample(seed=number)
        wanted += layout.flatten(update)[0]
        if "velocity" in state:
            wanted += codec.momentum * state["velocity"]  # type: ignore[attr-defined]
        if getattr(codec, "decay", None) is not None:  # what decays is given up, and said so
            wanted += (codec.decay - 1) * state["residual"]  # type: ignore[attr-defined]
        frame, after = codec.encode(update, state, derive(number))
        if number % 3 == 1:
            state = codec.lost(state, update)
        else:
            sent += layout.flatten(codec.decode(frame, layout))[0]
            state = after
        np.testing.assert_allclose(sent + state["residual"], wanted, atol=1e-5)


@pytest.mark.parametrize("spec", WRAPPED)
def test_feedback_subtracts_the_decoded_update(spec: str) -> None:
    codec = parse(spec)
    update = sample()
    layout = Layout.of(update)
    frame, state = codec.encode(update, codec.init(layout), derive(0))
    sent = layout.flatten(codec.decode(frame, layout))[0]
    np.testing.assert_array_equal(layout.flatten(update)[0] - sent, state["residual"])


@given(update=updates(), target=st.floats(0.001, 0.9))
def test_deadzone_holds_its_nmse(update: dict[str, np.ndarray], target: float) -> None:
    layout = Layout.of(update)
    codec = parse(f"deadzone(nmse={target!r})")
    values = layout.flatten(update)[0]
    frame, _ = codec.encode(update, {}, derive(0))
    read = read_frame(frame)
    back = codec.stages[0].decode(dict(read.streams), layout)["values"]
    # Steps and values this small are subnormal: their own rounding is of their size.
    if np.abs(values).max(initial=0) > 1e-30 or not values.any():
        assert nmse(values, back) <= target * (1 + 1e-5)


@pytest.mark.parametrize("target", [0.05, 0.5, 2.0])
def test_deadzone_holds_its_bits(target: float) -> None:
    update = sample(200_000)
    frame, _ = parse(f"deadzone(bits={target!r})").encode(update, {}, derive(0))
    _, counts = np.unique(read_frame(frame).streams["symbols"], return_counts=True)
    share = counts / counts.sum()
    assert 0.9 * target <= -(share * np.log2(share)).sum() <= target


@given(bits=st.integers(2, 16), update=updates())
def test_uniform_is_within_half_a_level(bits: int, update: dict[str, np.ndarray]) -> None:
    layout = Layout.of(update)
    values = layout.flatten(update)[0]
    frame, _ = parse(f"uniform({bits})").encode(update, {}, derive(0))
    streams = read_frame(frame).streams
    back = parse(f"uniform({bits})").stages[0].decode(dict(streams), layout)["values"]
    edges = np.cumsum([0, *(t.size for t in layout.lossy)])
    for start, stop in pairwise(edges):
        part = values[start:stop].astype(np.float64)
        level = np.abs(part).max(initial=0) / (2 ** (bits - 1) - 1)
        assert (
            np.abs(part - back[start:stop]).max(initial=0) <= level * 0.50001 + 2**bits * 1.5e-45
        )  # a subnormal scale is rounded itself


@given(update=updates(), fraction=st.floats(0.01, 1))
def test_topk_keeps_the_largest(update: dict[str, np.ndarray], fraction: float) -> None:
    layout = Layout.of(update)
    values = layout.flatten(update)[0]
    codec = parse(f"topk({fraction!r})")
    back = codec.stages[0].decode(codec.stages[0].encode({"values": values}, layout, derive(0)), layout)["values"]
    k = max(1, round(fraction * values.size)) if values.size else 0
    kept = np.flatnonzero(back)
    np.testing.assert_array_equal(back[kept], values[kept])
    assert kept.size <= k
    np.testing.assert_allclose(
        np.sort(np.abs(back))[::-1], np.pad(np.sort(np.abs(values))[::-1][:k], (0, values.size - k))
    )


WRONG = {
    "": "not a spec",
    "topc(0.1)": "did you mean 'topk'",
    "topk": "lacks fraction",
    "topk(2)": r"\(0, 1\], got 2",
    "topk(0)": r"\(0, 1\], got 0",
    "topk('a')": "takes numbers",
    "topk(True)": "takes numbers",
    "topk(0.1, 2)": "too many",
    "topk(0.1, fraction=0.2)": "once",
    "topk(share=0.2)": "'share' not",
    "uniform(1.5)": "whole number, got 1.5",
    "uniform(17)": "1 to 16, got 17",
    "deadzone()": "one of step, nmse, bits, bytes, got none",
    "deadzone(nmse=0.1, step=1)": "got step, nmse",
    "deadzone(nmse=1.5)": "below 1, got 1.5",
    "deadzone(0.1)": "too many",
    "zstd(0)": "1 to 22, got 0",
    "ans | topk(0.1)": "ans is lossless",
    "uniform(4) | topk(0.1)": "leaves none",
    "topk(0.1) | topk(0.1)": "another sparsifier",
    "ef": "wraps a codec",
    "topk(0.1) | ef": "ef must come first",
    "ef(3) | none": r"decay must be in \(0, 1\], got 3",
    "zstd(3) | ans(2)": "no arguments",
    "__import__('os')": "unknown codec",
    "a.b(1)": "not a codec",
    "topk(1e999)": "got inf",
    "none " * 500: "at most 1024",
    "none" + " | none" * 20: "at most 16 parts",
}


@pytest.mark.parametrize("spec", WRONG)
def test_a_wrong_spec_is_one_clear_line(spec: str) -> None:
    with pytest.raises(SpecError, match=WRONG[spec]) as error:
        parse(spec)
    assert "\n" not in str(error.value)


def test_nan_is_refused_by_name() -> None:
    update = sample()
    update["b"][3:6] = np.nan
    update["b"][9] = np.inf
    with pytest.raises(UpdateError, match=r"'b' must be finite, got 4"):
        parse("none").encode(update, {}, derive(0))
    with pytest.raises(UpdateError, match=r"'x' must be finite, got 1"):
        parse("none").encode({"x": np.array([1e300])}, {}, derive(0))


@pytest.mark.parametrize("short", [False, True])
def test_a_frame_of_another_codec_layout_or_base_is_refused(*, short: bool) -> None:
    update = sample()
    layout = Layout.of(update)
    whole, _ = parse("fp16").encode(update, {}, derive(0), base=b"12345678")
    frame = shorten(whole) if short else whole
    with pytest.raises(FrameError) if short else nullcontext():
        parse("fp16").decode(frame, layout)
    for decode in (
        lambda: parse("fp16 | zstd(3)").decode(frame, layout),
        lambda: parse("fp16").decode(frame, Layout.of({"w": update["w"]})),
        lambda: parse("fp16").decode(frame, layout, base=b"87654321"),
        lambda: parse("fp16").decode(frame, layout, base=b""),
    ):
        with pytest.raises(FrameError):
            decode()
    parse("fp16").decode(frame, layout, base=b"12345678")


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("base", [b"", b"12345678"])
def test_a_short_frame_is_read_as_the_whole_one(spec: str, base: bytes) -> None:
    update = sample(600)
    layout, codec = Layout.of(update), pipeline(spec)
    frame, _ = codec.encode(update, codec.init(layout), derive(0), base=base)
    short = shorten(frame)
    assert len(short) <= len(frame) - 18 - len(base)
    assert has_base(short) == has_base(frame) == bool(base)
    assert restore(short, FrameHead(str(codec), layout.digest, base)) == frame
    one, other = codec.decode(frame, layout, base=base), codec.decode(short, layout, base=base)
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    with pytest.raises(FrameError, match="short"):
        read_frame(short)


@pytest.mark.parametrize("spec", ["crosspolytope(0.3)", "qsgd(4) | ans", "lowrank(nmse=0.3) | ans", "fp16", "none"])
def test_a_connection_sends_at_most_twelve_bytes_of_head(spec: str) -> None:
    update = {"w": sample(30_000)["w"], "b": np.ones(10, np.float32)}
    frame, _ = parse(spec).encode(update, {}, derive(0), base=b"12345678")
    payload = sum(array.nbytes for array in read_frame(frame).streams.values())
    assert len(shorten(frame)) <= payload + 12


def resealed(body: bytes) -> bytes:
    """Return a frame whose checksum is right again."""
    frame = bytearray(body)
    frame[CRC] = zlib.crc32(bytes(frame[7:])).to_bytes(4, "little")
    return bytes(frame)


def survive(codec: object, frame: bytes, layout: Layout) -> None:
    try:
        back = codec.decode(frame, layout)  # type: ignore[attr-defined]
    except CodecFaultError:
        raise
    except FrameError:
        return
    assert Layout.of(back) == layout
    assert all(np.isfinite(array).all() for array in back.values())


@pytest.mark.parametrize("spec", SPECS)
@given(data=st.data())
def test_a_changed_frame_raises_frame_error_only(spec: str, data: st.DataObject) -> None:
    update = sample(600)
    layout = Layout.of(update)
    codec = parse(spec)
    frame, _ = codec.encode(update, codec.init(layout), derive(0))
    at = data.draw(st.integers(0, len(frame) - 1))
    flipped = bytearray(frame)
    flipped[at] ^= data.draw(st.integers(1, 255))
    short = shorten(frame)
    turned = bytearray(short)
    turned[at % len(short)] ^= data.draw(st.integers(1, 255))
    for broken in (bytes(flipped), frame[:at], frame + b"x", frame[at:], b"", bytes(turned), short + b"x", short[:at]):
        if broken in (frame, short):
            continue
        with pytest.raises(FrameError):
            codec.decode(broken, layout)
    if at >= 7:
        survive(codec, resealed(bytes(flipped)), layout)
    if at > 7:
        survive(codec, resealed(frame[:at]), layout)
        survive(codec, resealed(frame[:at] + frame[7:]), layout)


@pytest.mark.parametrize("spec", SPECS)
def test_golden_frames_are_still_read(spec: str) -> None:
    """Written once by scripts/golden and never again: what was sent once is read for ever. Encoders may get better."""
    name = "".join(c if c.isalnum() else "_" for c in spec)
    frame = (GOLDEN / f"{name}.fp").read_bytes()
    update = sample(2000, seed=5)
    layout = Layout.of(update)
    codec = parse(spec)
    back = codec.decode(frame, layout)
    with np.load(GOLDEN / f"{name}.npz") as wanted:
        for tensor in layout.tensors:
            np.testing.assert_array_equal(back[tensor.name], wanted[tensor.name])


def test_stages_are_frozen_and_hold_nothing_but_their_configuration() -> None:
    for name, entry in (*STAGES.items(), *WRAPPERS.items()):
        assert dataclasses.is_dataclass(entry.make), name
        assert entry.make.__dataclass_params__.frozen, name
        first = (__import__(entry.make.__module__, fromlist=["x"]).__doc__ or "").splitlines()[0]
        assert "https://" in first or name == "none", f"{name}: the first line names the paper"


def test_layouts_are_read_back_and_invalid_ones_refused() -> None:
    layout = Layout.of(sample())
    assert Layout.read(layout.text) == layout
    assert Layout.read(layout.text).digest == layout.digest
    for lie in (
        "",
        "{}",
        "[[1]]",
        '[["a", [-1], "float32"]]',
        '[["a", [1], "no"]]',
        '[["a", "x", "float32"]]',
        "null",
        "[1",
    ):
        with pytest.raises(FrameError):
            Layout.read(lie)
    with pytest.raises(SettingError):
        Layout.of({"x": np.array(["text"])})


def test_generators_are_pinned() -> None:
    """Runs are made again from their seed alone, so what a path gives never changes; a number is no text."""
    assert derive(0).integers(10**6, size=3).tolist() == [519630, 581812, 522861]
    assert derive(7, "train", 3).integers(10**6, size=3).tolist() == [941963, 563582, 33963]
    assert derive(7, "train", "3").integers(10**6, size=3).tolist() == [542680, 10238, 121069]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget at the end of a test which codecs it registered."""
    monkeypatch.setattr(third_party, "_references", dict(third_party._references))
    monkeypatch.setattr(third_party, "_broken", set())
    before = dict(STAGES)
    yield
    STAGES.clear()
    STAGES.update(before)


def scaled(factor: int) -> type[Identity]:
    """Return a new stage that multiplies by `factor`."""

    @dataclasses.dataclass(frozen=True)
    class Scaled(Identity):
        def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
            return {**streams, "values": streams["values"] * np.float32(factor)}

    return Scaled


FAULTS = {
    "raises": lambda streams: {}["values"],
    "no streams": lambda streams: None,
    "no arrays": lambda streams: {"values": streams["values"].tolist()},
    "another shape": lambda streams: {"values": streams["values"].reshape(1, -1)},
}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_stage_of_another_package_raises_is_a_frame_error(fault: str) -> None:
    """A node chooses the bytes that the stage decodes: a fault of the stage refuses the reply, and no more."""

    @dataclasses.dataclass(frozen=True)
    class Faulty(Identity):
        def decode(self, streams: Streams, layout: Layout) -> Streams:
            return FAULTS[fault](streams) if streams["values"][0] > 5 else streams

    fedpress.register(Faulty)
    codec = fedpress.codec("faulty")
    update = {"x": np.full(3, 9, np.float32), "y": np.full((2, 2), 9, np.float32)}
    frame, _ = codec.encode(update, {}, np.random.default_rng(0))
    with pytest.raises(FrameError, match="faulty") as raised:
        codec.decode(frame, Layout.of(update))
    assert raised.value.__cause__ is not None


@pytest.mark.usefixtures("registered")
def test_a_stage_of_another_package_that_cannot_be_made_is_a_spec_error() -> None:
    @dataclasses.dataclass(frozen=True)
    class Divides(Identity):
        by: int

        def __post_init__(self) -> None:
            _ = 1 / self.by

        def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
            return {**streams, "values": streams["values"] / [1, 2, 3][self.by]}

    fedpress.register(Divides)
    for spec in ("divides(0)", "divides(7)"):
        with pytest.raises(SpecError, match="divides"):
            fedpress.codec(spec)


@pytest.mark.usefixtures("registered")
def test_an_entry_point_that_cannot_be_imported_is_tried_and_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger names codecs: none of its names may make this process import again and again."""
    (tmp_path / "torn.py").write_text(
        f"with open({str(tmp_path / 'count')!r}, 'a') as f: f.write('x')\nraise OSError\n"
    )
    info = tmp_path / "torn-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torn\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fedpress.codecs]\ntorn = torn:Torn\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("unheard", "unheard:Of", "torn:Torn", "another"):
        with pytest.raises(SpecError):
            parse(name)
    assert (tmp_path / "count").read_text() == "x"
    assert sum("torn" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.usefixtures("registered")
def test_a_stage_that_is_defined_again_replaces_the_earlier_one() -> None:
    update = {"x": np.ones(2, np.float32)}
    for factor in (1, 2):
        fedpress.register(scaled(factor))
        codec = fedpress.codec("scaled")
        frame, _ = codec.encode(update, {}, np.random.default_rng(0))
        assert codec.decode(frame, Layout.of(update))["x"].tolist() == [factor, factor]
    assert codecs().count("scaled") == 1
