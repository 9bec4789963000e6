"""Partitions: the assignment of examples to nodes.

Every partition is a list of index arrays, one per node, that together hold each example exactly once.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import SettingError, unknown
from fedpress.common.rng import derive
from fedpress.settings.simulation import PARTITIONS
from fedpress.simulations.figures import save_figure

Indices = NDArray[np.int64]
_CELL, _TEXT, _COLOUR = 14, 8, "#0072B2"  # of the picture, in points
_DRAWS = 100  # at most so many random partitions are drawn until every node has examples


class Partitioner(Protocol):
    """The part of a flwr-datasets partitioner that is used here."""

    dataset: object

    @property
    def num_partitions(self) -> int:
        """Number of nodes."""

    def load_partition(self, partition_id: int) -> Mapping[str, object]:
        """Return one node's rows; their column "index" has the examples' positions."""


def iid(labels: Indices, clients: int, rng: np.random.Generator) -> list[Indices]:
    """Assign examples at random, in equal numbers to within one."""
    return [np.sort(part) for part in np.array_split(rng.permutation(labels.size), clients)]


def dirichlet(labels: Indices, clients: int, rng: np.random.Generator, alpha: float) -> list[Indices]:
    """Split every label by shares from Dirichlet(alpha), Li et al. 2021, https://arxiv.org/abs/2102.02079.

    As in that paper, a node that has its equal share of all examples gets no examples of further labels.
    """
    owner = np.empty(labels.size, np.int64)
    sizes = np.zeros(clients, np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(clients, alpha)) * (sizes < labels.size / clients)
        if not shares.sum() > 0:  # with a tiny alpha every node with room may have a share of 0
            shares = (sizes < labels.size / clients).astype(float)
        edges = (np.cumsum(shares / shares.sum()) * members.size).astype(np.int64)
        edges[-1] = members.size
        counts = np.diff(edges, prepend=0)
        owner[members] = np.repeat(np.arange(clients), counts)
        sizes += counts
    return [np.flatnonzero(owner == client) for client in range(clients)]


def shards(labels: Indices, clients: int, rng: np.random.Generator, each: int) -> list[Indices]:
    """Sort by label, cut into shards, assign `each` to every node, McMahan et al. 2017, https://arxiv.org/abs/1602.05629."""
    pieces = np.array_split(np.argsort(labels, kind="stable"), clients * each)
    assigned = rng.permutation(len(pieces)).reshape(clients, each)
    return [np.sort(np.concatenate([pieces[i] for i in row])) for row in assigned]


def natural(owners: Indices, groups: Indices, clients: int) -> list[Indices]:
    """Assign every owner's examples to one node.

    With more nodes than owners, an owner's examples are divided among several nodes by whole `groups`, recordings or
    passages, in order; with fewer, a node has several owners.
    """
    people = np.unique(owners)
    if clients <= people.size:
        return [np.flatnonzero(np.isin(owners, people[client::clients])) for client in range(clients)]
    parts: list[Indices] = []
    shares = np.diff(np.linspace(0, clients, people.size + 1).astype(int))
    for person, share in zip(people, shares, strict=True):
        owned = np.flatnonzero(owners == person)
        own_groups = np.unique(groups[owned])
        parts += [owned[np.isin(groups[owned], some)] for some in np.array_split(own_groups, share)]
    return parts


def from_flower(partitioner: Partitioner) -> list[Indices]:
    """Return the partition that a flwr-datasets partitioner makes of a dataset with the column "index"."""
    return [
        np.sort(np.asarray(partitioner.load_partition(i)["index"], np.int64)) for i in range(partitioner.num_partitions)
    ]


def partition(
    kind: str,
    labels: Indices,
    clients: int,
    seed: int,
    *,
    alpha: float = 0.5,
    shards_each: int = 2,
    owners: Indices | None = None,
    groups: Indices | None = None,
) -> list[Indices]:
    """Return the partition of examples with these `labels` (n,) among `clients` nodes.

    Raises
    ------
    SettingError
        If the kind is unknown, or a node is left without examples.
    """
    if kind not in PARTITIONS:
        raise SettingError(unknown("partition", kind, PARTITIONS))
    if not 1 <= clients <= labels.size:
        raise SettingError(f"{labels.size} examples cannot be divided among {clients} clients")
    if not alpha > 0:
        raise SettingError(f"alpha must be above 0, got {alpha}")
    most = labels.size // clients
    if kind == "shards" and not 1 <= shards_each <= most:
        raise SettingError(f"shards-per-client must be in 1..{most} with {clients} clients, got {shards_each}")
    makers: dict[str, Callable[[np.random.Generator], list[Indices]]] = {
        "iid": lambda rng: iid(labels, clients, rng),
        "dirichlet": lambda rng: dirichlet(labels, clients, rng, alpha),
        "shards": lambda rng: shards(labels, clients, rng, shards_each),
    }
    if kind == "natural":
        if owners is None:
            raise SettingError("this workload has no natural partition: its examples have no owners")
        parts = natural(owners, np.arange(labels.size) if groups is None else groups, clients)
        draws = 1
    else:
        for draws in range(1, _DRAWS + 1):
            parts = makers[kind](derive(seed, "partition", draws))
            if all(part.size for part in parts):
                break
    empty = sum(part.size == 0 for part in parts)
    if empty:
        times = f" in {draws} draws" if draws > 1 else ""
        cure = "fewer clients, or a larger alpha" if kind == "dirichlet" else "fewer clients"
        raise SettingError(f"partition {kind!r} leaves {empty} of {clients} clients without data{times}: {cure}")
    return parts


def draw(parts: list[Indices], labels: Indices, names: list[str], path: Path) -> None:
    """Draw the number of examples of each node and label as a PNG, of the first 60 nodes.

    The area of a disc is the number of examples.
    """
    from matplotlib.figure import Figure

    shown = parts[:60]
    counts = np.array([np.bincount(labels[part], minlength=len(names)) for part in shown])  # (nodes, labels)
    node, label = np.nonzero(counts)
    widest = 0.62 * max(map(len, names)) * _TEXT + 60  # points, of the labels' names and the axis
    width, height = max(360, len(shown) * _CELL + widest), len(names) * _CELL + 130
    figure = Figure(figsize=(width / 72, height / 72), dpi=150, layout="constrained")
    rows = {"height_ratios": (60, len(names) * _CELL), "hspace": 0}
    total, discs = figure.subplots(2, sharex=True, gridspec_kw=rows)
    total.bar(np.arange(len(shown)), counts.sum(1), 0.7, color=_COLOUR)
    total.set_ylabel("examples")
    discs.scatter(node, label, _CELL**2 * counts[node, label] / counts.max(), color=_COLOUR, linewidths=0)
    discs.set_yticks(range(len(names)), names, fontsize=_TEXT)
    discs.set_ylim(len(names) - 0.4, -0.6)
    discs.set_xlim(-0.7, len(shown) - 0.3)
    discs.set_xlabel(
        ("client" if len(shown) == len(parts) else f"client, the first {len(shown)} of {len(parts)}")
        + f"; the largest disc: {counts.max()} examples"
    )
    discs.xaxis.get_major_locator().set_params(integer=True)
    discs.grid(alpha=0.25)
    discs.set_axisbelow(True)
    for axes in (total, discs):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
