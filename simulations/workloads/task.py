"""A task: a workload's data, partitioned among nodes, and its model; fedpress's two Flower apps work on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fedpress.client.training.loop import Metrics, evaluate
from fedpress.common.errors import FedpressError, SettingError, unknown
from fedpress.common.named import import_object
from fedpress.common.rng import derive
from fedpress.compression import Update
from fedpress.settings import RunSettings
from fedpress.settings.simulation import SimulationSettings
from fedpress.simulations.workloads.initial_model import loader_of
from fedpress.simulations.workloads.partitions import Indices, partition
from fedpress.simulations.workloads.unlabelled import read_source


@dataclass(frozen=True)
class Examples:
    """Inputs (n, ...) and targets (n, ...), first axis examples. Never written to: processes share them."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def pick(self, indices: Indices) -> "Examples":
        """Return these examples, copied."""
        at = torch.from_numpy(indices)
        return Examples(self.x[at], self.y[at])


@dataclass(frozen=True)
class Data:
    """The data of a workload."""

    train: Examples
    test: Examples  # not on any client
    labels: Indices  # (n,) for dirichlet and shards; the target itself if there is one per example
    names: tuple[str, ...]  # of the labels
    owners: Indices | None = None  # (n,) the owner of each training example; None without owners
    groups: Indices | None = None  # (n,) the recording or passage of each training example


class Workload(Protocol):
    """A dataset and its models; docs/how-to/workloads.md shows how to write one."""

    @property
    def models(self) -> Mapping[str, Callable[[float], nn.Module]]:
        """Models by name, the default one first; each is made from a dropout rate."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The workload's defaults of settings by their keys, where they differ from the declared ones."""

    def load(self, settings: SimulationSettings) -> Data:
        """Return the data; raise DataError if it is missing or invalid."""


@dataclass(frozen=True, eq=False)
class WorkloadTask:
    """A workload under a run's configuration."""

    data: Data
    parts: list[Indices]
    makes: Mapping[str, Callable[[], nn.Module]]  # constructors of the workload's models by name, the run's first
    seed: int
    device: str
    holdout_share: float
    held_back: Mapping[str, Examples]  # on the server only, by the setting of their number
    may_fetch: bool  # whether missing data is downloaded
    _assigned: dict[int, tuple[Examples, Examples]] = field(default_factory=dict)

    def model(self, name: str = "") -> nn.Module:
        """Return a fresh model, the run's or another of the workload's; its weights derive from the seed alone.

        Raises
        ------
        SettingError
            If the workload has no such model.
        """
        if name and name not in self.makes:
            raise SettingError(unknown("model", name, self.makes))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(derive(self.seed, "model").integers(2**63)))
            return self.makes[name]() if name else next(iter(self.makes.values()))()

    def initial(self) -> Update:
        """Return the initial weights of a run."""
        return {name: tensor.numpy() for name, tensor in self.model().state_dict().items()}

    def examples(self, node: int) -> Examples:
        """Return the training examples of node `node`."""
        return self._assign(node)[0]

    def holdout(self, node: int) -> Examples:
        """Return the held-out examples of node `node`."""
        return self._assign(node)[1]

    def unlabelled(self, source: str, count: int) -> Tensor:
        """Return at most `count` inputs like those of the examples from another source, "mnist" or "folder:PATH".

        Raises
        ------
        DataError
            If they are missing, or have another shape.
        """
        return read_source(source, count, self.data.train.x, self.seed, may_fetch=self.may_fetch)

    def evaluate(self, weights: Update, model: nn.Module | None = None) -> Metrics:
        """Return accuracy and loss of the run's model, or of `model`, with these weights on the test set."""
        model = model or self._evaluated_model
        model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
        scores = evaluate(model, self.data.test, self.device)
        return {name: scores[name] for name in ("accuracy", "loss")}

    @cached_property
    def _evaluated_model(self) -> nn.Module:
        return self.model().to(self.device)

    def _assign(self, node: int) -> tuple[Examples, Examples]:
        if node not in self._assigned:
            if len(self._assigned) >= 256:  # a process of a large federation sees thousands of nodes
                self._assigned.clear()
            order = derive(self.seed, "holdout", node).permutation(self.parts[node])
            kept = int(len(order) * self.holdout_share)
            self._assigned[node] = tuple(self.data.train.pick(np.sort(part)) for part in (order[kept:], order[:kept]))  # type: ignore[assignment]
        return self._assigned[node]


@dataclass(frozen=True)
class TaskTerms:
    """The settings of a run that its task depends on: runs with equal terms share the task."""

    simulation: SimulationSettings
    seed: int
    device: str
    held_back: tuple[tuple[str, int], ...]  # settings with the numbers of examples that are held back from the nodes

    @classmethod
    def of(cls, settings: RunSettings) -> "TaskTerms":
        """Return the terms of a run."""
        held_back = tuple(item for extension in settings.extensions for item in extension.held_back.items())
        return cls(settings.simulation, settings.run.seed, settings.run.device, held_back)


def constructors(workload: Workload, simulation: SimulationSettings) -> dict[str, Callable[[], nn.Module]]:
    """Return the constructors of a run's models by name: its own first, then the others of the workload.

    Raises
    ------
    SettingError
        If there is no such model.
    """
    name = simulation.model or next(iter(workload.models))
    makes: dict[str, Callable[[], nn.Module]] = {
        known: partial(make, simulation.dropout) for known, make in workload.models.items()
    }
    if ":" in name:
        makes[name] = _own_model(name, simulation.dropout)
    if name not in makes:
        raise SettingError(f"{unknown('model', name, makes)}; one of your own is package.module:object")
    return {name: makes[name], **makes}


def _own_model(name: str, dropout: float) -> Callable[[], nn.Module]:
    """Return the constructor of the model that `package.module:object` makes."""
    make: Callable[..., nn.Module] = import_object("model", name)
    try:
        takes_dropout = "dropout" in signature(make).parameters
        signature(make).bind(**({"dropout": dropout} if takes_dropout else {}))
    except (TypeError, ValueError) as error:
        raise SettingError(f"model {name!r} must be a function without required arguments: {error}") from error
    if takes_dropout:
        make = partial(make, dropout=dropout)
    elif dropout:
        raise SettingError(f"dropout must be 0 with the model {name}, which does not take it, got {dropout}")
    try:
        with torch.random.fork_rng(devices=[]):
            made = make()
    except FedpressError:
        raise
    except Exception as error:  # its own code may raise anything
        raise FedpressError(f"model {name!r} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise SettingError(f"model {name!r} must return a torch.nn.Module, got {type(made).__qualname__}")
    return make


def make_task(workload: Workload, terms: TaskTerms) -> WorkloadTask:
    """Return the task of a run.

    Raises
    ------
    SettingError
        If the model is unknown, or the partition leaves a client without data.
    DataError
        If the data cannot be loaded.
    """
    simulation, seed = terms.simulation, terms.seed
    makes = constructors(workload, simulation)
    data, held_back = _hold_back(workload.load(simulation), terms)
    parts = partition(
        simulation.partition,
        data.labels,
        simulation.clients,
        seed,
        alpha=simulation.alpha,
        shards_each=simulation.shards_per_client,
        owners=data.owners,
        groups=data.groups,
    )
    if simulation.start:
        name = next(iter(makes))
        makes[name] = loader_of(Path(simulation.start), makes[name], data.train.x[:1])
    return WorkloadTask(data, parts, makes, seed, terms.device, simulation.holdout, held_back, simulation.fetch)


def _hold_back(data: Data, terms: TaskTerms) -> tuple[Data, dict[str, Examples]]:
    """Return the data for the nodes, and the server's examples."""
    if not terms.held_back:
        return data, {}
    names, sizes = zip(*terms.held_back, strict=True)
    count = len(data.train)
    if sum(sizes) >= count:
        raise SettingError(f"{' and '.join(names)} must leave some of the {count} examples to nodes, got {list(sizes)}")
    order = derive(terms.seed, "proxy").permutation(count)
    *held, rest = (np.sort(part) for part in np.split(order, np.cumsum(sizes)))
    owners, groups = (None if array is None else array[rest] for array in (data.owners, data.groups))
    left = replace(data, train=data.train.pick(rest), labels=data.labels[rest], owners=owners, groups=groups)
    return left, {name: data.train.pick(part) for name, part in zip(names, held, strict=True)}
