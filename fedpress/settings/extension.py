"""The settings of an extension, as a section of a run's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fedpress.common.errors import SettingError
from fedpress.common.settings import Settings
from fedpress.settings.node import NodeConfig

if TYPE_CHECKING:
    from fedpress.settings.run import RunSettings


@dataclass(frozen=True)
class NodeModel:
    """The model of a node, where it is not the run's."""

    name: str = ""  # one of the workload's models; the run's if empty
    width: float = 1.0  # share of that model's channels
    scale: float = 0.0  # a narrower layer's inputs are multiplied by (1 / its share of them) ** scale


class ExtensionSettings(Settings):
    """A section that an extension adds to a run's settings."""

    files: ClassVar[tuple[str, ...]] = ()  # names of the files that the extension writes to the run's folder
    changes_model: ClassVar[bool] = False  # whether the server's model changes by more than sums of the nodes' updates

    @property
    def active(self) -> bool:
        """Whether a run with these settings has the extension."""
        raise NotImplementedError

    @property
    def prunes(self) -> bool:
        """Whether weights that are minus zero in a request's model are pruned, and stay so in training."""
        return False

    @property
    def needs_class_counts(self) -> bool:
        """Whether nodes report how many examples of each class they have."""
        return False

    @property
    def held_back(self) -> Mapping[str, int]:
        """The numbers of training examples that are held back from the nodes, by their settings; {} for none."""
        return {}

    def node_model(self, node: NodeConfig, clients: int, seed: int) -> NodeModel | None:
        """Return the model of `node`; None for the run's."""
        return None

    def highlights(self, scores: Mapping[str, Any]) -> dict[str, str]:
        """Return what a run with this extension is judged by, for the terminal: text by its heading.

        `scores` are a round's row of result.json; after the last round, with the final scores.
        """
        return {}

    def complete(self, run: "RunSettings") -> "RunSettings":
        """Return the run's settings with those that these imply; raise SettingError if they contradict."""
        return run

    def measures(self, rounds: Sequence[Mapping[str, Any]], final: Mapping[str, Any], last: int) -> dict[str, float]:
        """Return measures of a finished run for comparisons, by name and unit.

        They are read from the rows of `rounds` and the `final` scores in its result.json; a mean over the last rounds
        is taken over `last` of them.
        """
        return {}

    def check_run(self, run: "RunSettings") -> None:
        """Raise SettingError if these settings conflict with others of the run."""


def spread_line(nodes: Mapping[str, float]) -> str:
    """Return a line on the nodes' accuracies: mean, 10th percentile and worst."""
    return f"{nodes['mean']:.4f}, p10 {nodes['p10']:.4f}, worst {nodes['worst']:.4f}"


def require_holdout(run: "RunSettings", key: str) -> None:
    """Raise SettingError if nodes hold no examples out; the setting `key` needs them."""
    if not run.deployed and not run.simulation.holdout:
        raise SettingError(f"holdout must be above 0 with {key}: nodes evaluate on the examples that they hold out")
