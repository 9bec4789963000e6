"""The task of a run: its model, its test set and its data, behind an interface that any package can implement."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn


class ExamplesLike(Protocol):
    """Inputs and targets of examples; the first axis of both is the example."""

    @property
    def x(self) -> "Tensor":
        """Inputs, (n, ...)."""

    @property
    def y(self) -> "Tensor":
        """Targets, int64: (n,), or (n, steps) for sequences."""


class Task(Protocol):
    """A task; the object that `[deployment] task` names returns one when called with the run's settings."""

    def model(self, name: str = "", /) -> "nn.Module":
        """Return a new model: the run's, or that of the given name, with weights from the run's seed."""

    def initial(self) -> dict[str, NDArray[Any]]:
        """Return the weights of the run's model before the first round."""

    def examples(self, node: int, /) -> ExamplesLike:
        """Return the training examples of node `node`."""

    def holdout(self, node: int, /) -> ExamplesLike:
        """Return the examples that node `node` holds out for evaluation."""

    def __hash__(self) -> int:
        """Return a hash of its identity: processes cache objects by task."""

    def evaluate(self, weights: dict[str, NDArray[Any]], model: "nn.Module | None" = None, /) -> Mapping[str, Any]:
        """Return scores of the run's model, or of `model`, with these weights on the test set."""


@runtime_checkable
class ServerDataTask(Protocol):
    """A task whose server has examples that no node has."""

    @property
    def held_back(self) -> Mapping[str, ExamplesLike]:
        """Training examples that were held back from the nodes, which may be empty, by the setting of their number."""

    def unlabelled(self, source: str, count: int, /) -> "Tensor":
        """Return at most `count` inputs like those of the examples from another source, "mnist" or "folder:PATH"."""
