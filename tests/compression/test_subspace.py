"""Laws of shared subspaces: both ends have the same, and what lies in them comes back."""

import numpy as np
import pytest

from fedpress.common.rng import derive
from fedpress.compression import Layout, SpecError, parse
from fedpress.compression.kernels.shared_subspace import LEAST_DIMENSIONS, subspace


@pytest.mark.parametrize("size", [LEAST_DIMENSIONS + 1, 1000, 9999, 100_000])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.7])
def test_its_directions_are_orthonormal(size: int, share: float) -> None:
    found = subspace("weight", size, share)
    if found is None:
        assert max(LEAST_DIMENSIONS, share * size) >= size
        return
    assert found.dimensions == max(LEAST_DIMENSIONS, int(np.ceil(share * size)))
    coordinates = derive(0).normal(size=found.dimensions).astype(np.float32)
    placed = found.place(coordinates)
    np.testing.assert_allclose(found.project(placed), coordinates, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(placed), np.linalg.norm(coordinates), rtol=1e-5)


def test_a_projection_keeps_its_share_of_the_energy() -> None:
    values = derive(1).normal(size=50_000).astype(np.float32)
    for share in (0.05, 0.2, 0.5):
        found = subspace("weight", values.size, share)
        assert found is not None
        kept = np.square(found.project(values)).sum() / np.square(values).sum()
        assert kept == pytest.approx(share, rel=0.1)


def test_tensors_of_different_names_have_different_subspaces() -> None:
    one, other = subspace("a", 5000, 0.1), subspace("b", 5000, 0.1)
    assert one is not None
    assert other is not None
    assert (one.bucket != other.bucket).mean() > 0.9


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_an_update_within_the_subspace_comes_back_and_any_other_as_its_projection(dtype: str) -> None:
    rng, codec = derive(2), parse("subspace(0.1) | none")
    update = {
        "weight": rng.normal(size=(40, 50)).astype(dtype),
        "bias": rng.normal(size=40).astype(dtype),
        "1.running_var": np.ones(4, np.float32),
        "steps": np.array(3),
    }
    layout = Layout.of(update)

    def sent(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return codec.decode(codec.encode(values, codec.init(layout), rng)[0], layout)

    once = sent(update)
    tolerance = 1e-2 if dtype == "float16" else 1e-5
    for name, array in sent(once).items():
        assert array.dtype == update[name].dtype
        np.testing.assert_allclose(array, once[name], rtol=tolerance, atol=tolerance)
    for name in ("bias", "1.running_var", "steps"):
        np.testing.assert_array_equal(once[name], np.asarray(update[name], np.float32).astype(update[name].dtype))
    rest = update["weight"].astype(float) - once["weight"]
    assert abs((rest * once["weight"]).sum()) < tolerance * np.square(rest).sum(), "what is lost is orthogonal"


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_is_a_part(share: float) -> None:
    with pytest.raises(SpecError, match="share"):
        parse(f"subspace({share!r}) | none" if share == share else "subspace(1e999) | none")
