"""Laws of partitions: every example exactly once, nobody without examples, the same seed the same partition."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.common.errors import SettingError
from fedpress.simulations.workloads.partitions import PARTITIONS, draw, from_flower, partition

LABELS = np.random.default_rng(0).integers(0, 10, 1500)
OWNERS = np.repeat(np.arange(6), 250)
GROUPS = np.repeat(np.arange(60), 25)


def make(kind: str, clients: int = 20, seed: int = 0, **kwargs) -> list[np.ndarray]:
    return partition(kind, LABELS, clients, seed, owners=OWNERS, groups=GROUPS, **kwargs)


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


@given(
    kind=st.sampled_from(PARTITIONS),
    clients=st.integers(1, 40),
    seed=st.integers(0, 2**62),
    alpha=st.sampled_from([0.1, 0.5, 10.0]),
    each=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_every_example_has_one_node_and_every_node_has_examples(kind, clients, seed, alpha, each) -> None:
    parts = make(kind, clients, seed, alpha=alpha, shards_each=each)
    assert len(parts) == clients
    assert all(part.size for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(LABELS.size))


@pytest.mark.parametrize("kind", PARTITIONS)
def test_the_seed_decides(kind: str) -> None:
    assert same(make(kind, seed=3), make(kind, seed=3))
    assert same(make(kind, seed=3), make(kind, seed=4)) == (kind == "natural")


@given(clients=st.integers(1, 1500))
@settings(max_examples=30, deadline=None)
def test_iid_is_even(clients: int) -> None:
    sizes = [part.size for part in make("iid", clients)]
    assert max(sizes) - min(sizes) <= 1


def test_a_small_alpha_makes_nodes_differ_more() -> None:
    def largest_share(alpha: float) -> float:
        parts = make("dirichlet", 10, alpha=alpha)
        return float(np.mean([np.bincount(LABELS[part]).max() / part.size for part in parts]))

    assert largest_share(0.1) > largest_share(1.0) + 0.1 > largest_share(1000.0) + 0.2
    assert largest_share(1000.0) < 0.2


@given(alpha=st.sampled_from([0.01, 0.1, 1.0]), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_dirichlet_gives_no_further_labels_to_a_full_node(alpha: float, seed: int) -> None:
    """A node's last label may take it beyond an equal share, by no more than all examples of that label."""
    try:
        parts = make("dirichlet", 10, seed, alpha=alpha)
    except SettingError:
        assert alpha == 0.01
        return
    assert max(part.size for part in parts) <= LABELS.size / 10 + np.bincount(LABELS).max()


@pytest.mark.parametrize("each", [1, 2, 5])
def test_a_node_of_shards_has_few_labels(each: int) -> None:
    even = np.repeat(np.arange(10), 100)
    for part in partition("shards", even, 20, 0, shards_each=each):
        assert np.unique(even[part]).size <= each
        assert part.size == 50


def test_naturally_an_owner_is_a_node() -> None:
    assert [np.unique(OWNERS[part]).tolist() for part in make("natural", 6)] == [[i] for i in range(6)]


def test_with_fewer_nodes_each_has_whole_owners() -> None:
    parts = make("natural", 4)
    assert sorted(person for part in parts for person in np.unique(OWNERS[part])) == list(range(6))


@pytest.mark.parametrize("clients", [7, 13, 60])
def test_with_more_nodes_an_owners_recordings_stay_whole(clients: int) -> None:
    parts = make("natural", clients)
    assert all(np.unique(OWNERS[part]).size == 1 for part in parts)
    assert sum(np.unique(GROUPS[part]).size for part in parts) == 60


@pytest.mark.parametrize(
    ("kind", "arguments", "line"),
    [
        ("iid", {"clients": 1501}, "1500 examples cannot be divided among 1501 clients"),
        ("iid", {"clients": 0}, "1500 examples cannot be divided among 0 clients"),
        ("iidd", {}, "unknown partition 'iidd': did you mean 'iid'?"),
        ("dirichlet", {"alpha": 0.0}, "alpha must be above 0, got 0.0"),
        ("dirichlet", {"alpha": float("nan")}, "alpha must be above 0, got nan"),
        (
            "dirichlet",
            {"clients": 700, "alpha": 0.001},
            "clients without data in 100 draws: fewer clients, or a larger",
        ),
        ("shards", {"clients": 100, "shards_each": 16}, "shards-per-client must be in 1..15 with 100 clients, got 16"),
        ("shards", {"shards_each": 0}, "shards-per-client must be in 1..75 with 20 clients, got 0"),
        ("natural", {"clients": 61}, "'natural' leaves 1 of 61 clients without data: fewer clients"),
    ],
)
def test_an_impossible_partition_gets_one_line(kind: str, arguments: dict, line: str) -> None:
    with pytest.raises(SettingError) as error:
        make(kind, **arguments)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_examples_without_owners_have_no_natural_partition() -> None:
    with pytest.raises(SettingError, match="no natural partition"):
        partition("natural", LABELS, 3, 0)


def test_ten_thousand_nodes() -> None:
    parts = partition("iid", np.zeros(60_000, np.int64), 10_000, 0)
    assert {part.size for part in parts} == {6}


class EveryThird:
    """A partitioner as flwr-datasets has them: a dataset, a number of partitions, one partition's rows by columns."""

    def __init__(self) -> None:
        self.dataset = {"index": np.arange(100), "label": np.arange(100) % 7}
        self.num_partitions = 3

    def load_partition(self, partition_id: int) -> dict[str, list[int]]:
        return {name: column[partition_id::3].tolist() for name, column in self.dataset.items()}


def check_partitioner(parts: list[np.ndarray], examples: int) -> None:
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(examples))
    assert all(part.dtype == np.int64 and np.all(np.diff(part) > 0) for part in parts)


def test_a_partitioner_of_flower_is_taken() -> None:
    parts = from_flower(EveryThird())
    check_partitioner(parts, 100)
    assert np.array_equal(parts[1], np.arange(1, 100, 3))


def test_flowers_own_partitioners_are_taken() -> None:
    datasets = pytest.importorskip("datasets", reason="flwr-datasets is not installed", exc_type=ImportError)
    partitioners = pytest.importorskip("flwr_datasets.partitioner", exc_type=ImportError)
    dirichlet = partitioners.DirichletPartitioner(5, "label", alpha=0.5, min_partition_size=1, seed=1)
    dirichlet.dataset = datasets.Dataset.from_dict({"index": np.arange(LABELS.size), "label": LABELS})
    parts = from_flower(dirichlet)
    assert len(parts) == 5
    check_partitioner(parts, LABELS.size)


@pytest.mark.parametrize(("clients", "labels"), [(3, 2), (100, 43)])
def test_a_partition_is_drawn(clients: int, labels: int, tmp_path: Path) -> None:
    from matplotlib.image import imread

    numbers = LABELS % labels
    names = [f"label {number}" for number in range(labels)]
    for kind in ("iid", "shards"):
        draw(partition(kind, numbers, clients, 0), numbers, names, tmp_path / f"{kind}.png")
    iid, shards = (imread(tmp_path / f"{kind}.png") for kind in ("iid", "shards"))
    height, width, _ = iid.shape
    assert 300 <= height <= 3000
    assert 700 <= width <= 3000
    assert iid.shape != shards.shape or not np.array_equal(iid, shards)
