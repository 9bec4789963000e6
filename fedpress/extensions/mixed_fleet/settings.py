"""The groups of nodes that have different models."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from fedpress.common.errors import SettingError
from fedpress.common.rng import derive
from fedpress.common.settings import Settings, option
from fedpress.settings.extension import ExtensionSettings, NodeModel
from fedpress.settings.node import NodeConfig

if TYPE_CHECKING:
    from fedpress.settings import RunSettings

_FILE_NAME = re.compile(r"(?!\.)[\w.-]+")  # valid as a file name on every system

SLICES = ("nested", "importance")
AVERAGING = (
    "FedAvg",
    "FedProx",
    "FedAvgM",
    "FedAdagrad",
    "FedAdam",
    "FedYogi",
)  # of weighted means, element by element


@dataclass(frozen=True)
class GroupSettings(Settings):
    """A group of nodes that have the same model."""

    model: str = option("", help="one of the workload's models; the run's if not given")
    width: float = option(1.0, above=0, maximum=1, help="share of that model's channels")
    share: float = option(0.0, minimum=0, maximum=1, help="share of the nodes; 0 if devices report what they run")

    @property
    def name(self) -> str:
        """The name of the group, and of its files."""
        return self.model or f"{self.width:g}"

    def check(self) -> None:
        if self.model and self.width != 1:
            raise SettingError(f"a group must have a model or a width, got {self.model!r} and {self.width}")
        if self.model and not _FILE_NAME.fullmatch(self.model):
            raise SettingError(
                f"a group's model must be letters, digits and . _ -, with no dot first, got {self.model!r}"
            )


@dataclass(frozen=True)
class MixedFleetSettings(ExtensionSettings):
    """Devices of different sizes in one federation."""

    changes_model: ClassVar[bool] = True

    groups: tuple[GroupSettings, ...] = option(
        (), help="tables of width or model, and share of the nodes; empty if all have the same model"
    )
    scale: float = option(
        0.5, minimum=0, maximum=1, help="a narrower layer's inputs are multiplied by (1 / its share of them) ** scale"
    )
    slices: str = option(
        "nested", choices=SLICES, help="which channels a width takes: the first, or the most important"
    )
    reorder: int = option(1, minimum=1, help="rounds between two rankings of the channels by importance")

    def check(self) -> None:
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names):
            raise SettingError(f"groups must have different names, got {', '.join(names)}")
        if len({bool(group.model) for group in self.groups}) > 1:
            raise SettingError(f"groups must differ all in width or all in model, got {', '.join(names)}")
        shares = [group.share for group in self.groups]
        if any(shares) and (not all(shares) or abs(sum(shares) - 1) > 1e-6):
            raise SettingError(f"shares of groups must add up to 1, got {', '.join(map(str, shares))}")
        if self.slices != "nested" and not self.by_width:
            raise SettingError(f"slices must be nested without groups of widths, got {self.slices!r}")

    @property
    def active(self) -> bool:
        """Whether nodes have different models."""
        return bool(self.groups)

    @property
    def by_width(self) -> bool:
        """Whether groups have widths of one model."""
        return any(not group.model for group in self.groups)

    @property
    def assigned(self) -> bool:
        """Whether nodes are assigned to groups by shares, and do not report what they run."""
        return any(group.share for group in self.groups)

    def highlights(self, scores: Mapping[str, Any]) -> dict[str, str]:
        return {f"group {name}": f"{group['accuracy']:.4f}" for name, group in scores.get("groups", {}).items()}

    def complete(self, run: "RunSettings") -> "RunSettings":
        """Return the run's settings with the first group's model, where groups have different models."""
        model = run.simulation.model
        if not self.groups or self.by_width or self.groups[0].model == model:
            return run
        first = self.groups[0].model
        if model:
            raise SettingError(f"model must be that of the first group, {first!r}, got {model!r}")
        return run.change("simulation", model=first)

    def check_run(self, run: "RunSettings") -> None:
        if self.groups and run.strategy.name not in AVERAGING:
            raise SettingError(f"strategy must be one of {', '.join(AVERAGING)} with groups, got {run.strategy.name!r}")
        if self.slices != "nested" and (run.server.shared_initial or not run.server.stateless):
            raise SettingError(
                f"stateless must be true and shared-initial false with slices {self.slices}: a node's state belongs "
                "to channels that it may lose"
            )
        if run.deployed and self.assigned:
            raise SettingError("share must be 0 for groups of devices, which report what they run")
        if not run.deployed and self.groups and not self.assigned:
            raise SettingError("share must be above 0 for groups of virtual nodes, which are assigned by it")

    def measures(self, rounds: Sequence[Mapping[str, Any]], final: Mapping[str, Any], last: int) -> dict[str, float]:
        return {
            f"group {name}, %": 100 * fmean(row["groups"][name]["accuracy"] for row in rounds[-last:])
            for name in final.get("groups", {})
        }

    def assign(self, partition: int, clients: int, seed: int) -> GroupSettings:
        """Return the group of virtual node `partition` of `clients`, assigned by the groups' shares."""
        return self.groups[_assign(tuple(group.share for group in self.groups), clients, seed)[partition]]

    def choose(self, width: str, model: str) -> GroupSettings:
        """Return the group of a device.

        With groups of widths, it is the widest that the device can train, and the narrowest if none is or no width is
        given; otherwise the group of the device's model.

        Parameters
        ----------
        width : str
            The share of channels that the device can train, as configured; empty if not configured.
        model : str
            The workload's model that it can train; empty if not configured.

        Raises
        ------
        SettingError
            If the device runs none of the run's models.
        """
        if not self.by_width:
            known = {group.model: group for group in self.groups}
            if model not in known:
                raise SettingError(f"a device's model must be one of {', '.join(known)}, got {model or 'none'}")
            return known[model]
        try:
            widest = float(width or 0.0)
        except ValueError:
            raise SettingError(f"a device's width must be a number, got {width!r}") from None
        ordered = sorted(self.groups, key=lambda group: group.width)
        return max((group for group in ordered if group.width <= widest), key=lambda g: g.width, default=ordered[0])

    def node_model(self, node: NodeConfig, clients: int, seed: int) -> NodeModel | None:
        if not self.groups:
            return None
        group = self.assign(node.number, clients, seed) if self.assigned else self.choose(node.width, node.model)
        return NodeModel(group.model, group.width, self.scale)


@lru_cache(maxsize=4)
def _assign(shares: tuple[float, ...], clients: int, seed: int) -> tuple[int, ...]:
    """Return the index of each node's group; sizes of groups are their shares of `clients`, rounded."""
    ends = [round(clients * sum(shares[: at + 1])) for at in range(len(shares))]
    groups = [0] * clients
    for place, node in enumerate(derive(seed, "groups").permutation(clients).tolist()):
        groups[node] = next(at for at, end in enumerate(ends) if place < end or at == len(ends) - 1)
    return tuple(groups)
