"""Laws of the cross-polytope code: unbiased over its draws, its error and its bytes as computed."""

import math

import numpy as np
import pytest

from fedpress.common.rng import derive
from fedpress.compression import FrameError, Layout, SpecError, parse
from fedpress.compression.kernels.uniform_rotation import gain, padded_size, rotate, rotate_back
from fedpress.compression.stages.transform.crosspolytope import expected_noise

DRAWS = 200


def update() -> dict[str, np.ndarray]:
    """A small network's update: tensors of very different sizes and scales, with heavy tails."""
    rng = np.random.default_rng(0)
    shapes = {"conv": (16, 1, 5, 5), "bias": (16,), "dense": (10, 400), "out": (10,), "gain": ()}
    return {
        name: (rng.standard_t(3, shape) * scale).astype(np.float32)
        for (name, shape), scale in zip(shapes.items(), (1, 0.1, 0.01, 1, 10), strict=True)
    }


def draws(spec: str, one: dict[str, np.ndarray]) -> np.ndarray:
    layout, codec = Layout.of(one), parse(spec)
    decoded = (codec.decode(codec.encode(one, {}, derive(seed))[0], layout) for seed in range(DRAWS))
    return np.array([layout.flatten(back)[0] for back in decoded], np.float64)


@pytest.mark.parametrize("spec", ["crosspolytope(0.3)", "crosspolytope(5.0)", "crosspolytope(noise=3.0)"])
def test_unbiased_over_draws_with_the_expected_error(spec: str) -> None:
    one = update()
    wanted = Layout.of(one).flatten(one)[0].astype(np.float64)
    got = draws(spec, one)
    error = np.square(got - wanted).sum(1)
    # The mean of independent draws without bias has a DRAWS-th of the error of one.
    assert np.square(got.mean(0) - wanted).sum() < 1.5 * error.mean() / DRAWS
    codec = parse(spec)
    noise = getattr(codec.stages[0], "noise", None)  # type: ignore[attr-defined]
    if noise is not None:
        assert error.mean() / np.square(wanted).sum() < 1.1 * noise
        return
    density = codec.stages[0].density  # type: ignore[attr-defined]
    energies = {name: float(np.square(array, dtype=np.float64).sum()) for name, array in one.items()}
    expected = sum(energy * expected_noise(one[name].size, density) for name, energy in energies.items())
    assert error.mean() == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("density", [0.3, 3.0])
def test_bytes_are_those_of_the_blocks(density: float) -> None:
    one = {"w": np.random.default_rng(1).standard_normal(50_000).astype(np.float32)}
    layout, codec = Layout.of(one), parse(f"crosspolytope({density})")
    frame, zero = (codec.encode({"w": w}, {}, derive(0))[0] for w in (one["w"], np.zeros_like(one["w"])))
    blocks = round(density * math.sqrt(50_000))
    bits = blocks * math.log2(2 * padded_size(50_000) / blocks)
    assert len(frame) - len(zero) == pytest.approx(bits / 8, rel=0.03, abs=2)
    assert layout.size == 50_000


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 129, 200, 300, 1000, 5000, 70_000])
def test_a_rotation_keeps_norms_and_its_transpose_undoes_it(size: int) -> None:
    x = np.random.default_rng(size).uniform(-1, 1, size).astype(np.float32)
    turned = rotate(x, 9)
    assert turned.size == padded_size(size)
    assert np.square(turned, dtype=np.float64).sum() == pytest.approx(
        gain(turned.size) * np.square(x, dtype=np.float64).sum(), rel=1e-5
    )
    np.testing.assert_allclose(rotate_back(turned, 9, size) / gain(turned.size), x, atol=1e-5)


def test_sums_of_a_rotation_back_are_exact() -> None:
    sparse = np.zeros(padded_size(3000), np.float32)
    sparse[np.random.default_rng(0).permutation(sparse.size)[:500]] = 1
    back = rotate_back(sparse.copy(), 3, 3000)
    assert (back == np.rint(back)).all()
    # The sums do not depend on their order: two halves added give the same bits.
    first, second = np.where(np.arange(sparse.size) % 2, sparse, 0), np.where(np.arange(sparse.size) % 2, 0, sparse)
    np.testing.assert_array_equal(rotate_back(first, 3, 3000) + rotate_back(second, 3, 3000), back)


@pytest.mark.parametrize("magnitude", [1e-45, 1e-38, 1e30, 3e38])
def test_any_finite_magnitude(magnitude: float) -> None:
    one = {"w": (np.random.default_rng(0).uniform(-1, 1, 500) * magnitude).astype(np.float32), "zero": np.zeros(9)}
    layout, codec = Layout.of(one), parse("crosspolytope(1.0)")
    back = codec.decode(codec.encode(one, {}, derive(0))[0], layout)
    assert np.isfinite(back["w"]).all()
    assert not back["zero"].any()


@pytest.mark.parametrize("spec", ["crosspolytope(0.0)", "crosspolytope(noise=0.1)", "crosspolytope(1.0, noise=2.0)"])
def test_a_wrong_argument_is_refused(spec: str) -> None:
    with pytest.raises(SpecError):
        parse(spec)


def test_vertices_outside_a_block_are_refused() -> None:
    one = {"w": np.random.default_rng(0).standard_normal(1000).astype(np.float32)}
    layout, stage = Layout.of(one), parse("crosspolytope(0.7)").stages[0]  # type: ignore[attr-defined]
    streams = stage.encode({"values": layout.flatten(one)[0]}, layout, derive(0))
    vertices = streams["vertices"].copy()
    vertices[9:-1] = 255  # after the seed, the largest scale and the only code
    with pytest.raises(FrameError):
        stage.decode({"vertices": vertices}, layout)
