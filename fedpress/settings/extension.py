"""The settings of an extension, as a section of a run's."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

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

    @property
    def active(self) -> bool:
        """Whether a run with these settings has the extension."""
        raise NotImplementedError

    @property
    def prunes(self) -> bool:
        """Whether weights that are minus zero in the model of a request are pruned: training leaves them so."""
        return False

    @property
    def needs_class_counts(self) -> bool:
        """Whether nodes report how many examples of each class they have."""
        return False

    def node_model(self, node: NodeConfig, clients: int, seed: int) -> NodeModel | None:
        """Return the model of `node`; None for the run's."""
        return None

    def complete(self, run: "RunSettings") -> "RunSettings":
        """Return the run's settings with what follows from these; raise SettingError if that contradicts them."""
        return run

    def check_run(self, run: "RunSettings") -> None:
        """Raise SettingError if these settings do not go together with the run's others."""


def require_holdout(run: "RunSettings", key: str) -> None:
    """Raise SettingError if the setting `key` lets nodes evaluate and they hold no examples out."""
    if not run.deployed and not run.simulation.holdout:
        raise SettingError(f"holdout must be above 0 with {key}: nodes evaluate on the examples that they hold out")
