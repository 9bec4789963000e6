"""The task of a run: its model, its test set and its data, behind an interface that any package can implement."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn


class ExamplesLike(Protocol):
    """Inputs and targets of the same number of examples, which the first axis of both counts."""

    @property
    def x(self) -> "Tensor":
        """Inputs, (n, ...)."""

    @property
    def y(self) -> "Tensor":
        """Targets, int64: (n,), or (n, steps) for sequences."""


class Task(Protocol):
    """What `[deployment] task` names is called with the run's settings and returns one."""

    def model(self, name: str = "", /) -> "nn.Module":
        """Return a fresh model: the run's, or another by its name. Its weights follow from the run's seed."""

    def initial(self) -> dict[str, NDArray[Any]]:
        """Return the weights of the run's model before the first round."""

    def examples(self, node: int, /) -> ExamplesLike:
        """Return what node `node` trains on."""

    def holdout(self, node: int, /) -> ExamplesLike:
        """Return what node `node` keeps for evaluation."""

    def __hash__(self) -> int:
        """Return a hash of its identity: a process keeps what it makes for each task."""

    def evaluate(self, weights: dict[str, NDArray[Any]], model: "nn.Module | None" = None, /) -> Mapping[str, Any]:
        """Return scores of the run's model, or of `model`, with these weights on the test set."""


@runtime_checkable
class DistillationTask(Protocol):
    """A task whose runs can distil: it has examples that no node has, any number of them, and none is enough."""

    @property
    def proxy(self) -> ExamplesLike:
        """Examples to teach on; their targets are not used."""

    @property
    def guard(self) -> ExamplesLike:
        """Examples that decide whether the taught model is accepted."""
