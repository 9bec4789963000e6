"""What the papers of sparsifiers and quantisers prove, and examples worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.common.rng import derive
from fedpress.compression import Layout, parse

DRAWS = 1000


def update(seed: int = 0, size: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"w": rng.standard_t(4, (size // 6, 6)).astype(np.float32), "b": rng.normal(size=7).astype(np.float32)}


def through(spec: str, values: dict[str, np.ndarray], seed: int = 0) -> np.ndarray:
    layout, codec = Layout.of(values), parse(spec)
    frame, _ = codec.encode(values, codec.init(layout), derive(seed))
    return layout.flatten(codec.decode(frame, layout))[0].astype(np.float64)


def flat(values: dict[str, np.ndarray]) -> np.ndarray:
    return Layout.of(values).flatten(values)[0].astype(np.float64)


@pytest.mark.parametrize("spec", ["randk(0.25)", "qsgd(1) | pack", "qsgd(4) | pack", "ternary | pack"])
def test_right_on_average(spec: str) -> None:
    one = update()
    draws = np.array([through(spec, one, seed) for seed in range(DRAWS)])
    # Six standard errors: one of 67 coordinates is beyond them once in ten million runs.
    spread = draws.std(axis=0) / DRAWS**0.5
    assert (np.abs(draws.mean(axis=0) - flat(one)) <= 6 * spread + 1e-5).all()


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_random_k_has_the_error_of_its_theorem(fraction: float) -> None:
    """E ||C(x) - x||^2 = (1 / p - 1) ||x||^2, Stich et al. 2018."""
    one = update()
    wanted = flat(one)
    errors = [((through(f"randk({fraction})", one, seed) - wanted) ** 2).sum() for seed in range(DRAWS)]
    proven = (1 / fraction - 1) * (wanted**2).sum()
    assert np.mean(errors) == pytest.approx(proven, rel=1e-9, abs=6 * np.std(errors) / DRAWS**0.5)


@pytest.mark.parametrize("levels", [1, 3, 16])
def test_qsgd_has_the_error_of_its_theorem(levels: int) -> None:
    """E ||Q(v) - v||^2 <= min(n / s^2, sqrt(n) / s) ||v||^2, theorem 3.2."""
    v = np.random.default_rng(1).standard_normal(200).astype(np.float32)
    errors = [((through(f"qsgd({levels}) | pack", {"v": v}, seed) - v) ** 2).sum() for seed in range(300)]
    assert np.mean(errors) <= min(v.size / levels**2, v.size**0.5 / levels) * (v.astype(float) ** 2).sum()


def test_qsgd_by_hand() -> None:
    """||(3, -4)|| is 5: with five levels both stand on one, and with one they are 0 or 5."""
    v = {"v": np.array([3, -4], np.float32)}
    np.testing.assert_allclose(through("qsgd(5) | pack", v), [3, -4], atol=1e-5)
    seen = {tuple(np.rint(through("qsgd(1) | pack", v, seed)).tolist()) for seed in range(200)}
    assert seen == {(0, 0), (5, 0), (0, -5), (5, -5)}


def test_ternary_by_hand() -> None:
    """The largest is always sent; half of it half the time; and clipping cuts it to 2.5 standard deviations."""
    v = {"v": np.array([2, -1, 0], np.float32)}
    draws = np.array([through("ternary | pack", v, seed) for seed in range(DRAWS)])
    assert set(draws[:, 0]) == {2.0}
    assert set(draws[:, 1]) == {-2.0, 0.0}
    assert (draws[:, 1] != 0).mean() == pytest.approx(0.5, abs=0.06)
    assert not draws[:, 2].any()
    spike = np.zeros(1000, np.float32)
    spike[::2], spike[1::2], spike[0] = 1, -1, 100
    assert np.abs(through("ternary(clip=2.5) | pack", {"v": spike})).max() == pytest.approx(2.5 * spike.std(), rel=1e-5)


@given(seed=st.integers(0, 2**32), fraction=st.floats(0.02, 1))
def test_top_k_loses_no_more_than_its_share(seed: int, fraction: float) -> None:
    """||x - top_k(x)||^2 <= (1 - k / n) ||x||^2, Stich et al. 2018."""
    one = update(seed)
    wanted = flat(one)
    left = ((through(f"topk({fraction!r})", one) - wanted) ** 2).sum()
    k = max(1, round(fraction * wanted.size))
    assert left <= (1 - k / wanted.size) * (wanted**2).sum() + 1e-9


@given(seed=st.integers(0, 2**32))
def test_scaled_signs_leave_what_their_lemma_says(seed: int) -> None:
    """||v - s sign(v)||^2 = ||v||^2 - ||v||_1^2 / n, Karimireddy et al. 2019."""
    v = np.random.default_rng(seed).standard_normal(50).astype(np.float32)
    left = ((through("sign | pack", {"v": v}) - v) ** 2).sum()
    assert left == pytest.approx((v.astype(float) ** 2).sum() - np.abs(v.astype(float)).sum() ** 2 / 50, rel=1e-4)
    layout = Layout.of({"v": np.zeros(8000, np.float32)})
    frame, _ = parse("sign | pack").encode({"v": np.ones(8000, np.float32)}, {}, derive(0))
    assert len(frame) < 1000 + 100
    assert layout.size == 8000


def test_kmeans_finds_clusters_and_keeps_few_values_as_they_are() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([-3, 0, 5])
    v = (rng.choice(centres, 600) + 0.01 * rng.standard_normal(600)).astype(np.float32)
    got = through("kmeans(3) | ans", {"v": v})
    assert np.abs(got - v).max() < 0.05
    assert np.unique(got).size == 3
    np.testing.assert_allclose(np.unique(got), centres, atol=0.01)
    few = np.tile(np.array([0.1, 0.2, 0.7], np.float32), 9)
    np.testing.assert_array_equal(through("kmeans(4)", {"v": few}), few)


@given(seed=st.integers(0, 2**32), scale=st.sampled_from([1e-30, 1.0, 1e30]))
def test_bf16_is_within_its_precision(seed: int, scale: float) -> None:
    v = (np.random.default_rng(seed).standard_normal(50) * scale).astype(np.float32)
    assert (np.abs(through("bf16", {"v": v}) - v) <= np.abs(v.astype(float)) * 2**-8).all()


def test_bf16_by_hand() -> None:
    """1 + 2**-8 lies between 1 and 1 + 2**-7, and goes to the even one; what is largest stays finite."""
    v = np.array([1 + 2**-8, 1 + 3 * 2**-8, np.finfo(np.float32).max], np.float32)
    got = through("bf16", {"v": v})
    np.testing.assert_array_equal(got[:2], [1, 1 + 2**-6])
    assert np.isfinite(got).all()


def test_threshold_by_hand() -> None:
    one = {"w": np.array([[1, -2, 0.5], [0.1, 0.1, 0.1]], np.float32), "b": np.array([3, -0.2], np.float32)}
    np.testing.assert_allclose(through("threshold(0.9)", one), [1, -2, 0, 0, 0, 0, 3, 0])
    assert not through("threshold(100)", one).any()


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), target=st.sampled_from([0.3, 0.03, 0.003]))
def test_low_rank_and_dead_zone_hold_their_nmse(seed: int, target: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.standard_normal((40, 3)) @ rng.standard_normal((3, 50)) + 0.3 * rng.standard_normal((40, 50))
    one = {"w": (low * rng.lognormal(0, 1, (1, 50))).astype(np.float32), "b": rng.normal(size=9).astype(np.float32)}
    wanted = flat(one)
    for spec in (f"lowrank(nmse={target}) | ans", f"deadzone(nmse={target}) | ans"):
        assert ((through(spec, one) - wanted) ** 2).sum() <= target * (wanted**2).sum() * (1 + 1e-5)


def test_low_rank_finds_low_rank_and_pays_for_nothing_else() -> None:
    rng = np.random.default_rng(0)
    one = {"w": (rng.standard_normal((300, 2)) @ rng.standard_normal((2, 400))).astype(np.float32)}
    layout = Layout.of(one)
    frames = {
        spec: parse(spec).encode(one, {}, derive(0))[0] for spec in ("best(nmse=0.01)", "deadzone(nmse=0.01) | ans")
    }
    best, scalar = (len(frame) for frame in frames.values())
    assert best * 25 < scalar
    assert best < 2 * 700  # less than a byte for each number of the two vectors
    assert parse("best(nmse=0.01)").decode(frames["best(nmse=0.01)"], layout)["w"].shape == (300, 400)


@pytest.mark.parametrize("budget", [600, 2000, 9000])
@pytest.mark.parametrize("name", ["lowrank", "deadzone"])
def test_a_frame_keeps_to_its_bytes(name: str, budget: int) -> None:
    rng = np.random.default_rng(1)
    one = {"w": (rng.standard_t(3, (120, 160)) * 0.01).astype(np.float32), "n": np.arange(9)}
    frame, _ = parse(f"{name}(bytes={budget}) | ans").encode(one, {}, derive(0))
    assert 0.8 * budget <= len(frame) <= budget
