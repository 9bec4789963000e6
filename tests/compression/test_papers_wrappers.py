"""What the papers prove of methods that remember, and of those that are chains of stages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.common.rng import derive
from fedpress.compression import Layout, SpecError, parse
from fedpress.compression.stages.transform.powersgd import PowerSgd

Update = dict[str, np.ndarray]


def matrix(rows: int, columns: int, rank: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))).astype(np.float32)


def nmse(wanted: np.ndarray, got: np.ndarray) -> float:
    wanted = wanted.astype(np.float64)
    return float(np.square(wanted - got).sum() / np.square(wanted).sum())


def rounds(spec: str, updates: list[Update]) -> list[Update]:
    """What a receiver decodes, round after round."""
    codec, layout, decoded = parse(spec), Layout.of(updates[0]), []
    state = codec.init(layout)
    for number, update in enumerate(updates):
        frame, state = codec.encode(update, state, derive(number))
        decoded.append(codec.decode(frame, layout))
    return decoded


def test_powersgd_by_hand() -> None:
    """[0 3 4]^T [1 2 0 2] is of rank one: P is its direction, [0 .6 .8] or the negative of it, and Q = M^T P."""
    update = {"w": np.outer([0, 3, 4], [1, 2, 0, 2]).astype(np.float32)}
    values, layout = update["w"].ravel(), Layout.of(update)
    streams, state = PowerSgd(1).advance({"values": values}, {}, layout, derive(0))
    sign = np.sign(streams["left"][1])
    np.testing.assert_allclose(streams["left"] * sign, [0, 0.6, 0.8], atol=1e-7)
    np.testing.assert_allclose(streams["right"] * sign, [5, 10, 0, 10], atol=1e-6)
    np.testing.assert_array_equal(state["q"], streams["right"])
    np.testing.assert_allclose(PowerSgd(1).decode(streams, layout)["values"], values, atol=1e-6)


@given(rank=st.integers(1, 6), rows=st.integers(20, 40), columns=st.integers(20, 40), seed=st.integers(0, 99))
def test_powersgd_is_exact_up_to_its_rank(rank: int, rows: int, columns: int, seed: int) -> None:
    update = {"w": matrix(rows, columns, rank, seed)}
    for spec in (f"powersgd({rank}) | pack", f"powersgd({rank + 2}) | pack"):
        (back,) = rounds(spec, [update])
        assert nmse(update["w"], back["w"]) < 1e-8


def test_powersgd_takes_the_first_axis_by_the_rest() -> None:
    kernel = matrix(16, 45, 2).reshape(16, 5, 3, 3)
    (back,) = rounds("powersgd(2) | pack", [{"conv": kernel}])
    assert nmse(kernel, back["conv"]) < 1e-10


def test_powersgd_sends_vectors_and_small_matrices_as_they_are() -> None:
    rng = np.random.default_rng(0)
    shapes = {"bias": (30,), "scalar": (), "small": (3, 4), "edge": (4, 4), "empty": (0, 9), "thin": (50, 1)}
    update = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    (back,) = rounds("powersgd(2) | pack", [update])
    for name, array in update.items():
        np.testing.assert_array_equal(back[name], array)


def test_powersgd_s_warm_start_finds_the_best_approximation() -> None:
    """The power iteration: on one matrix again and again, the error becomes that of the truncated SVD."""
    array = matrix(60, 80, 60, seed=3)
    singular = np.linalg.svd(array, compute_uv=False)
    best = np.square(singular[4:]).sum() / np.square(singular).sum()
    errors = [nmse(array, back["w"]) for back in rounds("powersgd(4) | pack", [{"w": array}] * 60)]
    assert errors[0] > 1.1 * best
    assert errors[-1] == pytest.approx(best, rel=1e-3)


def test_powersgd_recovers_from_a_round_of_zeros() -> None:
    array = matrix(30, 40, 3)
    zeros, back = rounds("powersgd(3) | pack", [{"w": np.zeros_like(array)}, {"w": array}])
    assert not zeros["w"].any()
    assert nmse(array, back["w"]) < 1e-10


def test_powersgd_with_feedback_sends_everything_in_time() -> None:
    """The mean of what is decoded tends to the update, whatever its rank."""
    update = {"w": matrix(40, 50, 40), "b": np.ones(9, np.float32)}
    mean = np.mean([back["w"] for back in rounds("ef | powersgd(2)", [update] * 200)], axis=0)
    assert nmse(update["w"], mean) < 0.02


def test_powersgd_ignores_a_memory_of_another_layout() -> None:
    codec, update = parse("powersgd(2) | pack"), {"w": matrix(20, 30, 20)}
    other = {"w": matrix(20, 31, 20)}
    _, memory = codec.encode(other, codec.init(Layout.of(other)), derive(0))
    fresh, _ = codec.encode(update, {}, derive(1))
    assert codec.encode(update, memory, derive(1))[0] == fresh


def test_powersgd_sums_pair_by_pair() -> None:
    """Written out: float32, elementwise, in the order of the vectors."""
    update = {"w": matrix(12, 15, 12)}
    layout = Layout.of(update)
    streams = PowerSgd(3).encode({"values": update["w"].ravel()}, layout, derive(0))
    left, right = streams["left"].reshape(3, 12), streams["right"].reshape(3, 15)
    wanted = np.zeros((12, 15), np.float32)
    for i, j in np.ndindex(12, 15):
        for k in range(3):
            wanted[i, j] = wanted[i, j] + left[k, i] * right[k, j]
    np.testing.assert_array_equal(PowerSgd(3).decode(streams, layout)["values"], wanted.ravel())


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1.0, 3e38])
def test_powersgd_with_tiny_and_huge_values(scale: float) -> None:
    array = (np.random.default_rng(0).uniform(-1, 1, (20, 30)) * scale).astype(np.float32)
    for back in rounds("powersgd(3) | pack", [{"w": array}] * 4):
        assert np.isfinite(back["w"]).all()
        if scale > 1e-40:
            assert nmse(array, back["w"]) < 1


def test_powersgd_must_be_given_whole_tensors() -> None:
    with pytest.raises(SpecError, match="cannot follow another sparsifier"):
        parse("threshold(0.1) | powersgd(1)")
    with pytest.raises(SpecError, match="leaves none"):
        parse("powersgd(1) | uniform(8)")
    with pytest.raises(SpecError, match="rank must be at least 1, got 0"):
        parse("powersgd(0)")


def test_dgc_by_hand() -> None:
    """Half the momentum, one of two values a round, updates [4 1]: worked out on paper."""
    codec, update = parse("dgc(0.5) | topk(0.5)"), {"w": np.array([4, 1], np.float32)}
    layout = Layout.of(update)
    state = codec.init(layout)
    for sent, velocity, residual in [
        ([4, 0], [0, 1], [0, 1]),
        ([4, 0], [0, 1.5], [0, 2.5]),  # what is not sent gathers speed: 1 + 1.5
        ([0, 4.25], [4, 0], [4, 0]),  # the other takes its turn, and its velocity is masked
        ([10, 0], [0, 1], [0, 1]),
    ]:
        frame, state = codec.encode(update, state, derive(0))
        assert codec.decode(frame, layout)["w"].tolist() == sent
        assert (state["velocity"].tolist(), state["residual"].tolist()) == (velocity, residual)


def test_dgc_counts_a_lost_frame_as_nothing_sent() -> None:
    codec, update = parse("dgc(0.5) | topk(0.5)"), {"w": np.array([4, 1], np.float32)}
    state = codec.init(Layout.of(update))
    for velocity, residual in [([4, 1], [4, 1]), ([6, 1.5], [10, 2.5]), ([7, 1.75], [17, 4.25])]:
        state = codec.lost(state, update)
        assert (state["velocity"].tolist(), state["residual"].tolist()) == (velocity, residual)


def test_dgc_sends_what_momentum_would_have_done() -> None:
    """Momentum correction: a value sent after T rounds carries the whole sum of its velocities over these rounds."""
    rng = np.random.default_rng(0)
    updates = [rng.normal(size=50).astype(np.float32) for _ in range(8)]
    codec = parse("dgc(0.9) | topk(1.0)")
    state = codec.init(Layout.of({"w": updates[0]}))
    for update in updates[:-1]:
        state = codec.lost(state, {"w": update})
    frame, state = codec.encode({"w": updates[-1]}, state, derive(0))
    velocity, wanted = np.zeros(50), np.zeros(50)
    for update in updates:
        velocity = 0.9 * velocity + update
        wanted += velocity
    np.testing.assert_allclose(codec.decode(frame, Layout.of({"w": updates[0]}))["w"], wanted, rtol=1e-4, atol=1e-5)
    assert not state["velocity"].any()
    assert not state["residual"].any()


def test_dgc_without_momentum_is_error_feedback() -> None:
    updates = [{"w": matrix(20, 30, 20, seed)} for seed in range(6)]
    for dgc, feedback in zip(rounds("dgc(0) | topk(0.1)", updates), rounds("ef | topk(0.1)", updates), strict=True):
        np.testing.assert_array_equal(dgc["w"], feedback["w"])


@given(momentum=st.floats(0, 0.99), seed=st.integers(0, 99))
def test_dgc_masks_the_velocity_where_something_was_sent(momentum: float, seed: int) -> None:
    """The velocity follows the decoded values, not the chosen ones: a chosen value that became zero keeps it."""
    codec, layout = parse(f"dgc({momentum!r}) | topk(0.3) | uniform(3)"), Layout.of({"w": matrix(9, 9, 9)})
    state = codec.init(layout)
    for number in range(4):
        frame, after = codec.encode({"w": matrix(9, 9, 9, seed + number)}, state, derive(number))
        sent = codec.decode(frame, layout)["w"].ravel()
        velocity = np.float32(momentum) * state["velocity"] + matrix(9, 9, 9, seed + number).ravel()
        np.testing.assert_array_equal(after["velocity"], np.where(sent == 0, velocity, 0))
        state = after


def test_dgc_s_arguments() -> None:
    for spec in ("dgc(1.0) | none", "dgc(-0.1) | none"):
        with pytest.raises(SpecError, match=r"momentum must be in \[0, 1\)"):
            parse(spec)
    with pytest.raises(SpecError, match="must come first"):
        parse("topk(0.1) | dgc(0.9)")


def test_stc_by_hand() -> None:
    """Two of eight values are kept, and both become their mean magnitude, whatever tensor they are of."""
    update = {"a": np.array([0, -6, 1, 0], np.float32), "b": np.array([[0.5, 2], [-1, 0]], np.float32)}
    first, second = rounds("stc(0.25)", [update, update])
    assert first["a"].tolist() == [0, -4, 0, 0]
    assert first["b"].tolist() == [[0, 4], [0, 0]]
    # Left over are -2, 1 and 0.5, -2, -1: wanted are -8, 2 and 1, 0, -2. Of equal ones the first is kept.
    assert second["a"].tolist() == [0, -5, 5, 0]
    assert not second["b"].any()


@given(seed=st.integers(0, 999), p=st.floats(0.01, 1))
def test_stc_is_the_paper_s_algorithm(seed: int, p: float) -> None:
    """Algorithm 1, as one formula each line; in the first round nothing is left over from before."""
    update = {"a": matrix(9, 11, 9, seed), "b": matrix(1, 40, 1, seed + 1)}
    flat = np.concatenate([array.ravel() for array in update.values()])
    k = max(1, round(flat.size * p))
    least = np.sort(np.abs(flat))[-k]
    mask = np.abs(flat) >= least
    mean = np.abs(flat[mask]).sum(dtype=np.float64) / k
    (back,) = rounds(f"stc({p!r})", [update])
    got = np.concatenate([array.ravel() for array in back.values()])
    np.testing.assert_allclose(got, mean * np.sign(flat) * mask, rtol=1e-6)


def test_ternarise_with_tiny_and_huge_values() -> None:
    for values in ([3e38, -3.4e38, 0.0], [1e-45, -1e-44, 0.0], [0.0, 0.0], []):
        array = np.array(values, np.float32)
        (back,) = rounds("ternarise | pack", [{"x": array}])
        np.testing.assert_array_equal(np.sign(back["x"]), np.sign(array))
        assert np.isfinite(back["x"]).all()


PRESETS = {
    "stc(0.02)": "ef | topk(0.02) | ternarise | ans",
    "dgc(0.02)": "dgc(0.9) | topk(0.02) | ans",
    "powersgd(3)": "ef | powersgd(3)",
    "drive": "drive | pack",
    "eden(3)": "eden(3) | pack",
    "qsgd(5)": "qsgd(5) | ans",
    "fedpaq(4)": "qsgd(7) | ans",
    "terngrad": "ternary(clip=2.5) | ans",
    "signsgd": "sign | pack",
    "deepcompression(0.1, 8)": "topk(0.1) | kmeans(8) | ans",
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_chain_of_stages(name: str) -> None:
    updates = [{"w": matrix(20, 30, 20, seed), "b": matrix(1, 30, 1)[0]} for seed in range(3)]
    for preset, spelled in zip(rounds(name, updates), rounds(PRESETS[name], updates), strict=True):
        for tensor in preset:
            np.testing.assert_array_equal(preset[tensor], spelled[tensor])
    assert str(parse(name)) == name


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_fedpaq_is_right_on_average_and_takes_its_bits(bits: int) -> None:
    """Assumption 1 of the paper: unbiased, with a variance of a constant times the update's square."""
    values = np.random.default_rng(bits).normal(size=60).astype(np.float32)
    codec, layout = parse(f"fedpaq({bits})"), Layout.of({"x": values})
    draws = [
        codec.decode(codec.encode({"x": values}, {}, derive(draw))[0], layout)["x"].astype(float) for draw in range(900)
    ]
    levels = 2 ** (bits - 1) - 1
    norm = float(np.linalg.norm(values))
    for back in draws[:20]:
        level = back * levels / norm
        np.testing.assert_allclose(level, np.rint(level), atol=1e-3)  # of 2 levels + 1 = 2**bits - 1 numbers
        assert np.abs(level).max() < levels + 0.5
    bound = min(60 / levels**2, 60**0.5 / levels)
    assert np.mean([nmse(values, back) for back in draws]) <= bound
    assert nmse(values, np.mean(draws, axis=0)) < 1.5 * bound / 900


def test_fedpaq_s_bits() -> None:
    for bits in (1, 17):
        with pytest.raises(SpecError, match=f"bits must be 2 to 16, got {bits}"):
            parse(f"fedpaq({bits})")


def test_terngrad_by_hand() -> None:
    """What lies beyond 2.5 standard deviations becomes these; zeros stay."""
    values = np.array([10.0, *[0.0] * 99], np.float32)
    (back,) = rounds("terngrad", [{"x": values}])
    assert back["x"][0] == pytest.approx(2.5 * 0.99**0.5, rel=1e-6)  # the deviation of 10 among 99 zeros is sqrt(0.99)
    assert not back["x"][1:].any()


def test_signsgd_by_hand() -> None:
    """A bit a value, and a scale a tensor: the mean magnitude."""
    (back,) = rounds("signsgd", [{"x": np.array([4, -1, 0, -3], np.float32)}])
    assert back["x"].tolist() == [2, -2, 2, -2]
    update = {"x": np.random.default_rng(0).normal(size=8000).astype(np.float32)}
    assert 1000 < len(parse("signsgd").encode(update, {}, derive(0))[0]) < 1100


def test_deepcompression_by_hand() -> None:
    """Half of the values is pruned; of the others, two clusters and their means are left."""
    values = np.array([0.1, 5, -0.2, 7, 0.3, -9, 0.1, -11], np.float32)
    (back,) = rounds("deepcompression(0.5, 2)", [{"x": values}])
    assert back["x"].tolist() == [0, 6, 0, 6, 0, -10, 0, -10]
