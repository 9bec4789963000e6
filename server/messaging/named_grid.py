"""Who is who: a Grid that lists nodes, and returns replies, in the order of their names."""

import logging
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedpress.common.errors import FedpressError, FrameError
from fedpress.common.logs import LOGGER
from fedpress.common.rng import derive
from fedpress.flower.grid import GridWrapper, NodeInfo, engine_grid
from fedpress.flower.message_size import message_nbytes
from fedpress.protocol.messages import RECORD_NAME, NodeDescription, NodeQuery, read_reply
from fedpress.server.messaging.ledger import Direction, Ledger, LedgerEntry

Join = Callable[[str, NodeDescription], str]  # given a node's name and description: why it cannot take part, or ""

_log = logging.getLogger(LOGGER)


class NamedGrid(GridWrapper):
    """Wraps a Grid; Flower's node ids are random, names are not: a partition in simulation, an enrolled name elsewhere.

    A grid may know the names: a simulation's, or a deployment's that binds them to enrolled keys. Else each node is
    asked once. Strategies sample by position in the list of nodes, so the same order gives the same choice on every
    engine.

    With `join` every node is asked, and `join` tells by its name and what it says of itself why it cannot take part;
    nothing if it can. Strategies wait until there are as many as they need, `needed`: if so many are there, and some of
    them are left out so that there were never enough, the run ends.
    """

    def __init__(
        self, grid: Grid, timeout: float, ledger: Ledger, join: Join | None = None, *, needed: int = 0
    ) -> None:
        super().__init__(grid)
        self._engine = engine_grid(grid)
        self._ledger = ledger
        self.versions: dict[str, bytes] = {}  # what nodes said that they hold, when they were asked for their names
        self._timeout = timeout  # seconds to wait for names
        # An engine that hands out the partitions itself need not ask ten thousand nodes. A deployment binds names to
        # enrolled keys: what a node says of itself counts for nothing.
        known = self._engine.names()
        self._bound = known is not None
        self._names = dict(known or {})
        self._join = join
        self._asked: set[int] = set()
        self._joined: set[int] = set()  # of those the ones that take part
        self._left_out: dict[int, str] = {}  # of those the others, and why
        self._needed = needed

    def name(self, node: int) -> str:
        """Return the name of a node that `get_node_ids` listed."""
        return self._names[node]

    def get_node_ids(self) -> Iterable[int]:
        nodes = list(self._grid.get_node_ids())
        strangers = [node for node in nodes if node not in self._names]
        if strangers and self._bound:
            self._names |= self._engine.names() or {}
        elif strangers:
            self._ask(strangers)
        if self._join and (fresh := [node for node in nodes if node in self._names and node not in self._asked]):
            self._ask(fresh)
        named = [node for node in nodes if node in self._names]
        if nodes and not named and not self._bound:
            raise FedpressError(
                "no node says who it is: does the ClientApp have mods=[compress()], before any other mod?"
            )
        if self._join:
            self._check_enough(nodes)
            named = [node for node in named if node in self._joined]
        return sorted(named, key=self.order)

    def get_nodes(self) -> Iterable[NodeInfo]:
        infos = {info.node_id: info for info in self._grid.get_nodes()}
        return [infos[node] for node in self.get_node_ids() if node in infos]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        # Flower's own grids go through the messages twice.
        taken = messages if self._engine.lazy else list(messages)
        replies = self._grid.send_and_receive(taken, timeout=timeout)
        if isinstance(taken, list):
            replies = self._attributed(taken, replies)
        return sorted(replies, key=lambda reply: self.order(reply.metadata.src_node_id))

    def _attributed(self, asked: list[Message], replies: Iterable[Message]) -> Iterator[Message]:
        """Yield replies under the node that was asked: SuperLink signs the error of one that went away with its own."""
        by_id = {message.metadata.message_id: message for message in asked}
        for reply in replies:
            if reply.metadata.src_node_id in self._names:
                yield reply
            elif reply.has_error() and reply.metadata.reply_to_message_id in by_id:
                yield Message(reply.error, reply_to=by_id[reply.metadata.reply_to_message_id])
            else:
                _log.warning("a reply from node %d, which was asked nothing, is left out", reply.metadata.src_node_id)

    def snapshot(self) -> Any:
        return self._engine.snapshot()

    def restore(self, snapshot: Any) -> bool:
        return snapshot is not None and self._engine.restore(snapshot)

    def order(self, node: int) -> tuple[bool, int, str]:
        """Return the key to sort nodes by: partitions by number, names by letter, a stranger last."""
        name = self._names.get(node)
        if name is None:
            return True, node, ""
        return (False, int(name), "") if name.isdecimal() else (True, 0, name)

    def _check_enough(self, nodes: list[int]) -> None:
        left_out = sorted((node for node in nodes if node in self._left_out), key=self.order)
        if left_out and len(self._joined) < self._needed <= len(nodes):
            why = "; ".join(f"node {self._names[node]}: {self._left_out[node]}" for node in left_out)
            raise FedpressError(
                f"the run needs {self._needed} nodes, and of {len(nodes)} that are there {len(self._joined)} can take "
                f"part. Left out: {why}"
            )

    def _ask(self, nodes: list[int]) -> None:
        # A mod is called only for kinds of messages that its app handles: every app trains, few answer queries.
        question = RecordDict({RECORD_NAME: NodeQuery().to_record()})
        messages = [Message(question, node, MessageType.TRAIN) for node in nodes]
        replies = list(self._grid.send_and_receive(messages, timeout=self._timeout))
        for reply in replies:
            node = reply.metadata.src_node_id
            try:
                description = _description(reply)
            except FrameError as error:
                _log.warning("node %d does not tell its name: %s", node, error)
                continue
            name = self._names.get(node) or description.name
            if node not in self._names and name in self._names.values():
                _log.warning("node %d has the name %r of another node: left out", node, name)
                continue
            self._names[node] = name
            self._asked.add(node)
            if self._join and (why := self._join(name, description)):
                _log.warning("node %s is left out: %s", name, why)
                self._left_out[node] = why
            else:
                self._joined.add(node)
            self.versions[name] = description.version

        for message in messages:
            self._count(message, message.metadata.dst_node_id, "down")
        for reply in replies:
            if not reply.has_error():
                self._count(reply, reply.metadata.src_node_id, "up")

    def _count(self, message: Message, node: int, direction: Direction) -> None:
        name = self._names.get(node, str(node))
        self._ledger.add(LedgerEntry(0, name, direction, "ask", 0, message_nbytes(message), 0))


def _description(reply: Message) -> NodeDescription:
    """Return what a node tells about itself; raise FrameError if it does not."""
    if reply.has_error():
        raise FrameError(reply.error.reason)
    record = reply.content.config_records.get(RECORD_NAME)
    if record is None:
        raise FrameError("its app has no compress() among its mods")
    match read_reply(record):
        case NodeDescription() as description:
            return description
        case _:
            raise FrameError("the reply must be a description of the node")


def seed_samplers(grid: NamedGrid, seed: int, *path: str | int) -> None:
    """Seed the generators that flwr's strategies sample with, so that the same nodes are chosen on every engine.

    Strangers are asked who they are first: that takes time, in which an engine's threads draw from the same generators.
    """
    list(grid.get_node_ids())
    random.seed(int(derive(seed, *path).integers(2**63)))
    np.random.seed(int(derive(seed, "numpy", *path).integers(2**32)))  # noqa: NPY002
