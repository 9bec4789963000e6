"""flwr's Grid with optional features of engines, and a wrapper of another Grid."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, ClassVar

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

__all__ = ["EngineGrid", "GridWrapper", "NodeInfo", "RestoredStates", "Run", "engine_grid"]


class RestoredStates(Enum):
    """The nodes' states when a federation is resumed."""

    RESTORED = "the engine restored them"
    KEPT = "the nodes keep them, and have those of their last message"
    LOST = "they are gone: the nodes start anew"


class EngineGrid(Grid):
    """A Grid with optional features beyond flwr's interface; by default an engine has none of them.

    Attributes
    ----------
    lazy : bool
        Whether `send_and_receive` iterates over its messages once, so that they may be generated lazily.
    cut_off : set of int
        Nodes whose replies the last `send_and_receive` did not wait for until its timeout.
    """

    lazy: ClassVar[bool] = False
    cut_off: frozenset[int] = frozenset()

    def names(self) -> Mapping[int, str] | None:
        """Return the known names of nodes by node id; None if names must be requested from the nodes."""
        return None

    def most_nodes(self) -> int | None:
        """Return the largest number of nodes that can ever be connected; None if others may join."""
        return None

    def snapshot(self) -> Any:
        """Return, as JSON, a reference to the nodes' current states; None if the engine does not keep them."""
        return None

    def restore(self, snapshot: Any) -> RestoredStates:
        """Restore the nodes' states of a snapshot; return what became of them."""
        return RestoredStates.KEPT


class GridWrapper(EngineGrid):
    """Forwards flwr's interface to another Grid.

    Parameters
    ----------
    grid : Grid
        The wrapped Grid.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def set_run(self, run: Run) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self._grid.send_and_receive(messages, timeout=timeout)


class ClosedGrid(GridWrapper):
    """A Grid of a simulation, whose nodes are there from the start.

    Parameters
    ----------
    grid : Grid
        The wrapped Grid.
    nodes : int
        The number of nodes.
    """

    def __init__(self, grid: Grid, nodes: int) -> None:
        super().__init__(grid)
        self._nodes = nodes

    def most_nodes(self) -> int:
        return self._nodes


def engine_grid(grid: Grid) -> EngineGrid:
    """Return `grid` itself if it is an EngineGrid, otherwise a wrapper without optional features."""
    return grid if isinstance(grid, EngineGrid) else GridWrapper(grid)
