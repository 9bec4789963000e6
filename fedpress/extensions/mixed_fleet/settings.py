"""Groups of nodes: devices of different sizes in one federation, each group with a model of its own.

Both ends read the groups from the run's configuration. Virtual nodes are dealt out by shares, from the seed; a device
says in its own configuration what it can run: `width = 0.25`, or `model = "lenet"`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from fedpress.common.errors import SettingError, unknown
from fedpress.common.rng import derive
from fedpress.common.settings import require
from fedpress.extensions import ExtensionSettings

_PLAIN = re.compile(r"(?!\.)[\w.-]+")  # what is a file's name everywhere
SLICES = ("nested", "importance")


@dataclass(frozen=True)
class Group:
    """Nodes that have the same model."""

    name: str
    model: str = ""  # one of the workload's; empty for the run's
    width: float = 1.0  # share of that model's channels
    share: float = 0.0  # of the nodes, where they are dealt out; 0 where devices say themselves what they run


@dataclass(frozen=True)
class MixedFleetSettings(ExtensionSettings):
    """Devices of different sizes in one federation."""

    groups: str = ""  # widths or models, with their shares of nodes: 1:0.5,0.25:0.5 or cnn:0.5,lenet:0.5; empty for one
    scale: float = 0.5  # a narrower layer's inputs are multiplied by (1 / its share of them) to this power
    slices: str = "nested"  # which channels a width takes: nested or importance
    reorder: int = 1  # rounds between two looks at which channels are important

    def __post_init__(self) -> None:
        if self.slices not in SLICES:
            raise SettingError(unknown("slices", self.slices, SLICES))
        if self.slices != "nested" and not self.wide:
            raise SettingError(
                f"slices say which channels a width takes: {self.slices!r} needs groups of widths, got {self.groups!r}"
            )
        require(0 <= self.scale <= 1, "scale", "in [0, 1]", self.scale)
        require(self.reorder >= 1, "reorder", "at least 1", self.reorder)

    @property
    def enabled(self) -> bool:
        """Whether nodes have different models."""
        return bool(self.all)

    @property
    def all(self) -> tuple[Group, ...]:
        """The groups, in the order in which they are named; none if all nodes have the same model."""
        return _read(self.groups)

    @property
    def wide(self) -> bool:
        """Whether groups are widths of one model."""
        return any(not group.model for group in self.all)

    @property
    def dealt(self) -> bool:
        """Whether nodes are dealt out, and do not say themselves what they run."""
        return any(group.share for group in self.all)

    def deal(self, partition: int, clients: int, seed: int) -> Group:
        """Return the group of virtual node `partition` of `clients`."""
        return self.all[_deal(tuple(group.share for group in self.all), clients, seed)[partition]]

    def choose(self, width: str, model: str) -> Group:
        """Return the group of a device.

        It is the widest that is no wider than the device can train, the narrowest if it names no width or a smaller
        one.

        Parameters
        ----------
        width : the share of channels that the device can train, as its configuration has it; empty if it names none
        model : the workload's model that it can train; empty if it names none

        Raises
        ------
        SettingError
            If the run has no model for the device.
        """
        if not self.wide:
            known = {group.model: group for group in self.all}
            if model not in known:
                raise SettingError(
                    f"a device's model must be one of the run's, {', '.join(known)}; got {model or 'none'}"
                )
            return known[model]
        try:
            most = float(width or 0.0)
        except ValueError:
            raise SettingError(f"a device's width must be a number, got {width!r}") from None
        by_width = sorted(self.all, key=lambda group: group.width)
        return max((group for group in by_width if group.width <= most), key=lambda g: g.width, default=by_width[0])

    def of(self, node: Mapping[str, object], clients: int, seed: int) -> Group | None:
        """Return the group of a node with this configuration; None if all have the same model."""
        if not self.all:
            return None
        return (
            self.deal(int(str(node["partition-id"])), clients, seed)
            if self.dealt
            else self.choose(str(node.get("width", "")), str(node.get("model", "")))
        )


@lru_cache(maxsize=16)
def _read(text: str) -> tuple[Group, ...]:
    if not text:
        return ()
    groups = []
    for part in text.split(","):
        what, colon, share = (piece.strip() for piece in part.partition(":"))
        try:
            portion = float(share) if colon else 0.0
        except ValueError as error:
            raise SettingError(f"groups are pairs such as 1:0.5,0.25:0.5, got {text!r}") from error
        if not what or (colon and not 0 < portion <= 1):
            raise SettingError(f"groups are pairs such as 1:0.5,0.25:0.5, with shares in (0, 1], got {text!r}")
        try:
            width = float(what)
        except ValueError:
            if not _PLAIN.fullmatch(what):
                raise SettingError(
                    f"a group's name is its folder's too: letters, digits and . _ -, with no dot first; got {what!r}"
                ) from None
            groups.append(Group(what, what, 1.0, portion))
            continue
        require(0 < width <= 1, "a group's width", "in (0, 1]", what)
        groups.append(Group(f"{width:g}", "", width, portion))
    if len({group.name for group in groups}) < len(groups):
        raise SettingError(f"groups are each named once, got {text!r}")
    if len({bool(group.model) for group in groups}) > 1:
        raise SettingError(f"groups differ in width or in model, got {text!r}")
    shares = [group.share for group in groups]
    if any(shares) and (not all(shares) or abs(sum(shares) - 1) > 1e-6):
        raise SettingError(f"the shares of groups add up to 1, got {text!r}")
    return tuple(groups)


@lru_cache(maxsize=4)
def _deal(shares: tuple[float, ...], clients: int, seed: int) -> tuple[int, ...]:
    """Return the number of each node's group: as many nodes in each as its share says, to the nearest."""
    ends = [round(clients * sum(shares[: at + 1])) for at in range(len(shares))]
    groups = [0] * clients
    for place, node in enumerate(derive(seed, "groups").permutation(clients).tolist()):
        groups[node] = next(at for at, end in enumerate(ends) if place < end or at == len(ends) - 1)
    return tuple(groups)
