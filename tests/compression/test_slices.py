"""Laws of parts of a model: what is taken can be put back, and a mean by coverage is a mean."""

import numpy as np
import pytest

from fedpress.compression.submodels import Index, Slice
from fedpress.server.aggregation.coverage import Coverage

RNG = np.random.default_rng(5)
WHOLE = {
    "kernel": RNG.normal(size=(6, 4, 3, 3)).astype(np.float32),
    "matrix": RNG.normal(size=(5, 8)).astype(np.float32),
    "bias": RNG.normal(size=5).astype(np.float32),
    "steps": np.array(4),
}


def part(**indices: Index) -> Slice:
    return Slice({name: name for name in WHOLE}, indices)


EVERYTHING = part()
SOME = part(
    kernel=(np.array([0, 2, 5]), np.array([3, 1])),
    matrix=(None, np.array([6, 7, 1])),
    bias=(np.array([4, 0]),),
)
SLICES = [EVERYTHING, SOME, Slice({"inner": "matrix"}, {"inner": (np.array([1]),)})]


@pytest.mark.parametrize("where", SLICES)
def test_put_inverts_take(where: Slice) -> None:
    taken = where.take(WHOLE)
    assert list(taken) == list(where.names)
    back = where.put(taken, WHOLE)
    assert {name: array.tobytes() for name, array in back.items()} == {n: a.tobytes() for n, a in WHOLE.items()}
    marked = where.put({name: array * 0 + 9 for name, array in taken.items()}, WHOLE)
    assert all((array == 9).all() for array in where.take(marked).values())
    # And nothing else is touched.
    changed = sum(int((marked[name] != WHOLE[name]).sum()) for name in WHOLE)
    assert changed == sum(array.size for array in taken.values())


def test_a_slice_selects_along_every_axis() -> None:
    taken = SOME.take(WHOLE)
    np.testing.assert_array_equal(taken["kernel"], WHOLE["kernel"][[0, 2, 5]][:, [3, 1]])
    np.testing.assert_array_equal(taken["matrix"], WHOLE["matrix"][:, [6, 7, 1]])


def models(count: int) -> list[tuple[dict[str, np.ndarray], float]]:
    return [
        ({name: array + RNG.normal(size=array.shape).astype(np.float32) for name, array in WHOLE.items()}, weight)
        for weight in RNG.uniform(1, 50, count).tolist()
    ]


def test_full_coverage_has_the_bits_of_fedavg() -> None:
    votes = models(7)
    coverage = Coverage(WHOLE, (weight for _, weight in votes))
    expected: dict[str, np.ndarray] = {}
    for model, weight in votes:
        coverage.add(model, weight, EVERYTHING)
        share = weight / sum(w for _, w in votes)
        for name, array in model.items():
            expected[name] = expected[name] + array * share if name in expected else array * share
    mean = coverage.mean()
    assert {name: array.tobytes() for name, array in mean.items()} == {n: a.tobytes() for n, a in expected.items()}


def test_each_element_is_the_mean_of_those_that_cover_it() -> None:
    votes = models(6)
    where = [EVERYTHING, SOME, SLICES[2], SOME, SLICES[2], SOME]
    for chosen in (slice(0, 6), slice(1, 6)):  # all of it is covered; then not all
        coverage = Coverage(WHOLE, (weight for _, weight in votes[chosen]))
        sums = {name: np.zeros(array.shape) for name, array in WHOLE.items()}
        weights = {name: np.zeros(array.shape) for name, array in WHOLE.items()}
        for (model, weight), place in zip(votes[chosen], where[chosen], strict=True):
            taken = place.take(model)
            coverage.add(taken, weight, place)
            zeros = {name: np.zeros(array.shape) for name, array in WHOLE.items()}
            ones = place.put({name: np.ones(array.shape) for name, array in taken.items()}, zeros)
            for name in WHOLE:
                sums[name] += weight * ones[name] * place.put(taken, zeros)[name]
                weights[name] += weight * ones[name]
        mean = coverage.mean()
        for name, old in WHOLE.items():
            wanted = np.where(weights[name] > 0, sums[name] / np.maximum(weights[name], 1e-9), old)
            np.testing.assert_allclose(mean[name], wanted, rtol=1e-5, atol=1e-6)
            assert (mean[name][weights[name] == 0] == old[weights[name] == 0]).all()
