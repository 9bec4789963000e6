"""What the papers on rotations prove of them, and their constants: Suresh 2017, DRIVE 2021, EDEN 2022."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.common.rng import derive
from fedpress.compression import FrameError, Layout, SpecError, parse
from fedpress.compression.codec import Stage
from fedpress.compression.kernels.lloyd_max import centroids
from fedpress.compression.kernels.walsh_hadamard import blocks, signs, transform
from fedpress.compression.pipeline import Pipeline

# Squared error, as a part of the update's, of the normal distribution's best quantisers with the unbiased scale.
VNMSE = {1: 0.570796, 2: 0.133121, 3: 0.035784, 4: 0.0095921, 5: 0.0025110, 6: 0.00064465, 7: 0.00016350, 8: 4.1187e-5}
ONE_BLOCK = 8192
HOSTILE = {
    "zeros": np.zeros(40, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(-2.5, np.float32),
    "equal": np.full(100, 0.3, np.float32),
    "subnormal": np.linspace(-1e-42, 1e-44, 50, dtype=np.float32),
    "largest": np.full(64, np.finfo(np.float32).max),
    "nearly": np.linspace(-1, 1, 8200, dtype=np.float32) * np.finfo(np.float32).max,
    "half": np.linspace(-65504, 65504, 200).astype(np.float16),
    "double": np.linspace(-3e38, 3e38, 77).reshape(7, 11).T,
}


def only(spec: str) -> Stage:
    codec = parse(f"{spec} | pack")  # of one part alone it may be the preset
    assert isinstance(codec, Pipeline)
    return codec.stages[0]


def heavy(size: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_t(3, size) * 0.01).astype(np.float32)


def there_and_back(stage: Stage, values: np.ndarray, seed: int = 0) -> np.ndarray:
    layout = Layout.of({"x": values})
    return stage.decode(stage.encode({"values": values}, layout, derive(seed)), layout)["values"]


def decoded(spec: str, values: np.ndarray, seed: int = 0) -> np.ndarray:
    update = {"x": values}
    return parse(spec).decode(parse(spec).encode(update, {}, derive(seed))[0], Layout.of(update))["x"]


def error(values: np.ndarray, back: np.ndarray) -> float:
    wanted = values.astype(np.float64)
    return float(np.square(wanted - back).sum() / np.square(wanted).sum())


def sylvester(size: int) -> np.ndarray:
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def test_the_transform_by_hand() -> None:
    assert transform(np.array([[1, 2, 3, 4], [1, 0, 0, 0]], np.float32)).tolist() == [[10, -2, -4, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("size", [16, 64, 512])
def test_the_transform_is_sylvester_s_matrix_and_its_own_inverse(size: int) -> None:
    vectors = np.random.default_rng(0).integers(-9, 10, (3, size)).astype(np.float32)  # integers: sums are exact
    np.testing.assert_array_equal(transform(vectors), vectors @ sylvester(size).astype(np.float32))
    np.testing.assert_array_equal(transform(transform(vectors)) / size, vectors)


@given(sizes=st.lists(st.integers(0, 300_000), max_size=5))
def test_blocks_leave_at_most_fifteen_values_of_a_tensor(sizes: list[int]) -> None:
    edges = np.cumsum([0, *sizes])
    covered = np.zeros(edges[-1], np.int64)
    for where, size in blocks(edges):
        assert size in (1 << np.arange(4, 14))
        assert where.stop > where.start
        assert (where.stop - where.start) % size == 0
        assert np.searchsorted(edges, where.start, "right") == np.searchsorted(edges, where.stop, "left")
        covered[where] += 1
    assert covered.max(initial=0) <= 1
    for start, stop in pairwise(edges.tolist()):
        assert (stop - start) - covered[start:stop].sum() == (stop - start) % 16


def test_signs_are_the_bits_of_philox() -> None:
    """Philox4x64-10 with the key (seed, 0) and the counters 1, 2, ...; Salmon et al. 2011, written out."""
    mask, seed = (1 << 64) - 1, 4_000_000_007
    words = []
    for count in (1, 2):
        a, b, c, d = count, 0, 0, 0
        for turn in range(10):
            key = (seed + turn * 0x9E3779B97F4A7C15) & mask, (turn * 0xBB67AE8584CAA73B) & mask
            first, second = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
            a, b, c, d = (second >> 64) ^ b ^ key[0], second & mask, (first >> 64) ^ d ^ key[1], first & mask
        words += [a, b, c, d]
    wanted = [1 - 2 * (words[i // 64] >> i % 64 & 1) for i in range(500)]
    assert signs(seed, 500).tolist() == wanted


@given(size=st.integers(0, 20_000), seed=st.integers(0, 100))
def test_rotation_keeps_norms_and_is_undone(size: int, seed: int) -> None:
    values, stage = heavy(size, seed), only("hadamard")
    layout = Layout.of({"x": values})
    streams = stage.encode({"values": values}, layout, derive(seed))
    assert streams["values"].size == size  # nothing is padded
    norms = [np.square(array, dtype=np.float64).sum() for array in (values, streams["values"])]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    peak = np.abs(streams["values"]).max(initial=0)
    np.testing.assert_allclose(stage.decode(streams, layout)["values"], values, rtol=0, atol=3e-6 * peak)


@pytest.mark.parametrize("kind", ["spike", "heavy", "equal"])
def test_the_largest_rotated_value_is_small(kind: str) -> None:
    """Suresh et al., lemma 7: the square of the largest is at most (2 ln d + 2) / d of the norm's, on average."""
    d = ONE_BLOCK
    values = {"spike": np.eye(1, d, 7)[0], "heavy": heavy(d), "equal": np.ones(d)}[kind].astype(np.float32)
    stage, layout = only("hadamard"), Layout.of({"x": values})
    peaks = [stage.encode({"values": values}, layout, derive(draw))["values"].max() for draw in range(50)]
    bound = (2 * math.log(d) + 2) / d * np.square(values, dtype=np.float64).sum()
    assert np.mean(np.square(peaks)) <= bound


def test_rotation_bounds_the_error_of_uniform_levels() -> None:
    """By the lemma above, at half a level a value; without rotation one large value makes the error arbitrary."""
    values, levels = heavy(ONE_BLOCK), 7
    values[5] = 1.0
    bound = (2 * math.log(ONE_BLOCK) + 2) / (4 * levels**2)
    rotated = [error(values, decoded("hadamard | uniform(4)", values, draw)) for draw in range(10)]
    assert np.mean(rotated) <= bound
    assert error(values, decoded("uniform(4)", values)) > 4 * bound


def test_rotated_stochastic_levels_are_right_on_average() -> None:
    """The paper's own use of the rotation, with QSGD's levels."""
    values, draws = heavy(512), 400
    backs = [decoded("hadamard | qsgd(60)", values, draw) for draw in range(draws)]
    one = np.mean([error(values, back) for back in backs])
    assert error(values, np.mean(backs, axis=0, dtype=np.float64)) < 1.5 * one / draws


@pytest.mark.parametrize("bits", range(1, 9))
def test_centroids_are_lloyd_and_max_s(bits: int) -> None:
    """Each is the normal distribution's mean over the cell of what lies nearest to it, to float32's precision."""
    levels = centroids(bits).astype(np.float64)
    np.testing.assert_array_equal(levels, -levels[::-1])
    ends = np.array([0, *(levels[1:] + levels[:-1])[2 ** (bits - 1) :] / 2, 40.0])
    mass = np.diff([-math.erfc(end / math.sqrt(2)) for end in ends])
    means = -np.diff(np.exp(-(ends**2) / 2)) * math.sqrt(2 / math.pi) / mass
    np.testing.assert_allclose(levels[2 ** (bits - 1) :], means, rtol=2.0**-23)
    assert 1 / float((mass * means**2).sum()) - 1 == pytest.approx(VNMSE[bits], rel=1e-4)


def test_one_bit_by_hand() -> None:
    """A rotated spike is all of one magnitude, so one bit restores it: the scale is 3 * 3 / (16 * 3)."""
    values = np.zeros(18, np.float32)
    values[[4, 16, 17]] = 3.0, 0.5, -0.25  # the last two are in no block of 16
    stage, layout = only("drive"), Layout.of({"x": values})
    streams = stage.encode({"values": values}, layout, derive(0))
    assert streams["scale"].tolist() == [3 / 16]
    assert streams["rest"].tolist() == [0.5, -0.25]
    sign = signs(int(streams["seed"][0]), 18)[4]
    np.testing.assert_array_equal(streams["symbols"], sylvester(16)[4] * sign > 0)
    np.testing.assert_array_equal(stage.decode(streams, layout)["values"], values)


@pytest.mark.parametrize(("spec", "bits"), [("drive", 1), *((f"eden({bits})", bits) for bits in VNMSE)])
def test_the_error_is_what_the_paper_proves(spec: str, bits: int) -> None:
    """DRIVE: pi / 2 - 1; EDEN: that of the normal distribution's best quantiser, for one large block."""
    values = np.random.default_rng(1).lognormal(0, 1, ONE_BLOCK).astype(np.float32)
    errors = [error(values, there_and_back(only(spec), values, draw)) for draw in range(12)]
    assert np.mean(errors) == pytest.approx(VNMSE[bits], rel=0.03)


@pytest.mark.parametrize("spec", ["drive", "eden(1)", "eden(2)", "eden(4)"])
def test_many_draws_are_right_on_average(spec: str) -> None:
    """Unbiased: the mean over n draws has an n-th of one draw's error, for n clients as for n draws."""
    values, draws = heavy(1024), 400
    mean = np.mean([there_and_back(only(spec), values, draw) for draw in range(draws)], axis=0, dtype=np.float64)
    one = error(values, there_and_back(only(spec), values))
    assert error(values, mean) < 1.5 * one / draws


@given(size=st.integers(16, 9000), seed=st.integers(0, 1000), bits=st.integers(1, 8))
def test_a_block_s_projection_on_the_update_is_the_update(size: int, seed: int, bits: int) -> None:
    """<decoded, x> = <x, x>: the scale's defining property, block by block."""
    values = heavy(size, seed)
    back = there_and_back(only(f"eden({bits})"), values, seed).astype(np.float64)
    for where, width in blocks(np.array([0, size])):
        part = values[where].reshape(-1, width).astype(np.float64)
        np.testing.assert_allclose((back[where].reshape(-1, width) * part).sum(1), (part * part).sum(1), rtol=1e-4)


def test_one_bit_of_eden_is_drive() -> None:
    values = heavy(5000)
    drive, eden = (there_and_back(only(spec), values) for spec in ("drive", "eden(1)"))
    np.testing.assert_allclose(drive, eden, rtol=1e-5, atol=1e-7)


def test_tensors_do_not_mix() -> None:
    """A layer that did not change stays as it is, whatever its neighbours did."""
    update = {"a": heavy(1000), "frozen": np.zeros((32, 32), np.float32), "b": heavy(1000)}
    layout = Layout.of(update)
    for spec in ("hadamard | uniform(4)", "drive", "eden(3)"):
        back = parse(spec).decode(parse(spec).encode(update, {}, derive(0))[0], layout)
        assert not back["frozen"].any()


@pytest.mark.parametrize("spec", ["hadamard", "hadamard | uniform(4) | pack", "drive | pack", "eden(3) | ans"])
@pytest.mark.parametrize("name", HOSTILE)
def test_any_update_decodes_to_finite_values(spec: str, name: str) -> None:
    update = {name: HOSTILE[name], "other": heavy(100)}
    back = parse(spec).decode(parse(spec).encode(update, {}, derive(0))[0], Layout.of(update))
    assert np.isfinite(back[name]).all()
    if name in ("zeros", "scalar", "empty"):
        np.testing.assert_array_equal(back[name], update[name])


def page_s_transform(block: list[np.float32]) -> list[np.float32]:
    """H of docs/explanation/frame.md, number by number."""
    for _ in range(len(block).bit_length() - 1):
        pairs = list(zip(block[::2], block[1::2], strict=True))
        block = [a + b for a, b in pairs] + [a - b for a, b in pairs]
    return block


@pytest.mark.parametrize("spec", ["hadamard", "drive", "eden(3)"])
def test_levels_are_those_of_the_documentation(spec: str) -> None:
    """The rotation of docs/explanation/frame.md: 116 and 7 values are blocks of 64, 32 and 16, and 4 and 7 in none."""
    values = heavy(123)
    stage, layout = only(spec), Layout.of({"a": values[:116], "b": values[116:]})
    streams = stage.encode({"values": values}, layout, derive(0))
    sign = [np.float32(s) for s in signs(int(streams["seed"][0]), 123)]
    wanted = [np.float32(0)] * 123
    if spec == "hadamard":
        wanted = [a * b for a, b in zip(streams["values"], sign, strict=True)]
    else:
        for place, value in zip((*range(112, 116), *range(116, 123)), streams["rest"], strict=True):
            wanted[place] = value
    levels = [np.float32(-1), np.float32(1)] if spec == "drive" else list(centroids(3))
    for number, (start, size) in enumerate(((0, 64), (64, 32), (96, 16))):
        if spec == "hadamard":
            block = page_s_transform([value * np.float32(1 / size) for value in streams["values"][start:][:size]])
            factor = np.float32(math.sqrt(size))
        else:
            block = page_s_transform([levels[symbol] for symbol in streams["symbols"][start:][:size]])
            factor = streams["scale"][number]
        wanted[start : start + size] = [a * factor * b for a, b in zip(block, sign[start:], strict=False)]
    np.testing.assert_array_equal(stage.decode(streams, layout)["values"], np.array(wanted))


def test_rotated_values_are_not_rotated_again() -> None:
    for spec in ("hadamard | hadamard", "hadamard | drive", "hadamard | eden(2)"):
        with pytest.raises(SpecError, match="cannot follow another rotation"):
            parse(spec)
    with pytest.raises(SpecError, match="bits must be 1 to 8, got 9"):
        parse("eden(9)")


@pytest.mark.parametrize(
    ("spec", "stream", "value"),
    [
        ("hadamard", "values", np.nan),
        ("eden(2)", "symbols", 4),
        ("eden(2)", "scale", np.inf),
    ],
)
def test_invalid_arguments_are_refused(spec: str, stream: str, value: float) -> None:
    values = heavy(100)
    stage, layout = only(spec), Layout.of({"x": values})
    streams = stage.encode({"values": values}, layout, derive(0))
    streams[stream] = streams[stream].copy()
    streams[stream][3 % streams[stream].size] = value
    with pytest.raises(FrameError):
        stage.decode(streams, layout)
