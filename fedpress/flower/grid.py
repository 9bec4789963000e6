"""flwr's Grid with what an engine may offer beyond it, and a wrapper of another Grid."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

__all__ = ["EngineGrid", "GridWrapper", "NodeInfo", "Run", "engine_grid"]


class EngineGrid(Grid):
    """A Grid, and what an engine may offer beyond flwr's interface. Each default offers nothing.

    Attributes
    ----------
    lazy : bool
        Whether `send_and_receive` goes through its messages once, so that they may be made while it does.
    """

    lazy: ClassVar[bool] = False

    def names(self) -> Mapping[int, str] | None:
        """Return the nodes' names by node id, as far as they are known now; None if nodes have to be asked."""
        return None

    def snapshot(self) -> Any:
        """Return, as JSON, where the nodes' states are as they are now; None if the engine does not keep them."""
        return None

    def restore(self, snapshot: Any) -> bool:
        """Put the nodes' states back to what they were; return whether the engine could."""
        return False


class GridWrapper(EngineGrid):
    """Passes everything of flwr's interface on to another Grid.

    Parameters
    ----------
    grid : Grid
        The Grid to pass it on to.
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


def engine_grid(grid: Grid) -> EngineGrid:
    """Return `grid` itself if it is an engine's, else one that offers nothing beyond flwr's interface."""
    return grid if isinstance(grid, EngineGrid) else GridWrapper(grid)
