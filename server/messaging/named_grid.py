"""A Grid that names its nodes: nodes and replies are listed in the order of the names."""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedpress.common.errors import FedpressError, FrameError, SettingError
from fedpress.common.logs import LOGGER, clean
from fedpress.common.rng import GLOBAL_GENERATORS, derive
from fedpress.flower.grid import GridWrapper, NodeInfo, RestoredStates, engine_grid
from fedpress.flower.message_size import message_nbytes
from fedpress.protocol.messages import RECORD_NAME, NodeDescription, NodeQuery, read_reply
from fedpress.server.messaging.ledger import Direction, Ledger, LedgerEntry

Join = Callable[
    [str, NodeDescription], str
]  # returns the reason why a node cannot take part, or "", given its name and description

_PATIENCE = 60.0  # seconds to wait for an answer that takes no work, and to leave alone who did not give one
_MAX_DOUBLINGS = 6  # of the latter time, each time that it is asked in vain

_log = logging.getLogger(LOGGER)


class NamedGrid(GridWrapper):
    """Wraps a Grid and names its nodes: Flower's node ids are random, names are stable.

    A name is the partition's number in a simulation, and the enrolled name in a deployment. Nodes without a
    known name are queried once. Strategies sample by position in the list of nodes, so the same order gives the same
    choice on every engine.

    Where others may join, a node that cannot take part, or that does not answer, is left out with one warning and
    costs the others no more than a query now and then. Where nobody can join, the run fails.

    Parameters
    ----------
    grid : Grid
        The grid to wrap.
    timeout : float
        Seconds to wait for names.
    ledger : Ledger
        Counts the bytes of queries.
    join : callable, optional
        Returns the reason why a node cannot take part, or "", given its name and description; every node is then
        queried.
    needed : int
        Number of nodes that the strategy waits for.

    Raises
    ------
    SettingError
        If fewer than `needed` nodes can ever be connected.
    """

    def __init__(
        self, grid: Grid, timeout: float, ledger: Ledger, join: Join | None = None, *, needed: int = 0
    ) -> None:
        super().__init__(grid)
        self._engine = engine_grid(grid)
        self._ledger = ledger
        self.versions: dict[str, bytes] = {}  # by node, the version of the model that it reported
        self._timeout = timeout
        # The engine's own names are not queried. A deployment binds them to enrolled keys, whatever nodes reply.
        known = self._engine.names()
        self._bound = known is not None
        self._names = dict(known or {})
        self._join = join
        self._connected: list[int] = []
        self._queried: set[int] = set()
        self._joined: set[int] = set()  # nodes that take part
        self._left_out: dict[int, str] = {}  # nodes that do not take part -> reason
        self._unanswered = Counter[int]()  # queries in a row that a node did not answer with a description
        self._next_query: dict[int, float] = {}  # when to query such a node again, time.monotonic()
        self._needed = needed
        most = self._engine.most_nodes()
        if most is not None and most < needed:
            raise SettingError(
                f"the strategy waits for {needed} nodes, and there are {most}: give it a min_available_nodes, "
                f"min_train_nodes and min_evaluate_nodes of at most {most}, or run more nodes"
            )

    def name(self, node: int) -> str:
        """Return the name of a node that `get_node_ids` listed."""
        return self._names[node]

    def get_node_ids(self) -> Iterable[int]:
        nodes = self._connected = list(self._grid.get_node_ids())
        unnamed = [node for node in nodes if node not in self._names]
        if unnamed and self._bound:
            self._names |= self._engine.names() or {}
        else:
            self._query_due(unnamed)
        if self._join:
            self._query_due([node for node in nodes if node in self._names and node not in self._queried])
        named = [node for node in nodes if node in self._names]
        if nodes and not named and not self._bound and not self._are_few(nodes):
            raise FedpressError(
                "no node replied with its name: does the ClientApp have mods=[compress()], before any other mod?"
            )
        if self._join:
            if not self.waits:
                self._check_enough(nodes)
            named = [node for node in named if node in self._joined]
        return sorted(named, key=self.order)

    def get_nodes(self) -> Iterable[NodeInfo]:
        infos = {info.node_id: info for info in self._grid.get_nodes()}
        return [infos[node] for node in self.get_node_ids() if node in infos]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        # Flower's own grids iterate over the messages twice.
        sent = messages if self._engine.lazy else list(messages)
        replies = self._grid.send_and_receive(sent, timeout=timeout)
        if isinstance(sent, list):
            replies = self._attributed(sent, replies)
        return sorted(replies, key=lambda reply: self.order(reply.metadata.src_node_id))

    def _attributed(self, sent: list[Message], replies: Iterable[Message]) -> Iterator[Message]:
        """Yield replies under the id of the addressed node: SuperLink uses its own id for the error of a lost node."""
        by_id = {message.metadata.message_id: message for message in sent}
        for reply in replies:
            if reply.metadata.src_node_id in self._names:
                yield reply
            elif reply.has_error() and reply.metadata.reply_to_message_id in by_id:
                yield Message(reply.error, reply_to=by_id[reply.metadata.reply_to_message_id])
            else:
                _log.warning("a reply from node %d, which was sent no message, is ignored", reply.metadata.src_node_id)

    def none_answers(self, failed: list[int]) -> bool:
        """Return whether, besides the nodes that failed, no node's app answers a query as compress() does."""
        nodes = list(self.get_node_ids()) if self.waits else failed
        if self._are_few(nodes) or self._queried.intersection(nodes):
            return False
        self._query_due(nodes)
        return not self._queried.intersection(nodes)

    @property
    def waits(self) -> bool:
        """Whether nodes may join or return, so that it is worth waiting for them."""
        return self._engine.most_nodes() is None

    @property
    def cut_off(self) -> frozenset[int]:  # type: ignore[override]
        return self._engine.cut_off

    def snapshot(self) -> Any:
        return self._engine.snapshot()

    def restore(self, snapshot: Any) -> RestoredStates:
        return self._engine.restore(snapshot)

    def order(self, node: int) -> tuple[bool, int, str]:
        """Return the key to sort nodes by: partitions by number, then other names, then nodes without a name."""
        name = self._names.get(node)
        if name is None:
            return True, node, ""
        return (False, int(name), name) if name.isdecimal() else (True, 0, name)

    def _check_enough(self, nodes: list[int]) -> None:
        left_out = sorted((node for node in nodes if node in self._left_out), key=self.order)
        if left_out and len(self._joined) < self._needed <= len(nodes):
            reasons = "; ".join(f"node {clean(self._names[node])}: {clean(self._left_out[node])}" for node in left_out)
            raise FedpressError(
                f"the run needs {self._needed} nodes, and of {len(nodes)} that are connected {len(self._joined)} can "
                f"take part. Left out: {reasons}"
            )

    def _are_few(self, nodes: list[int]) -> bool:
        """Return whether others may join, and these nodes are too few to judge the app of all by theirs."""
        return self.waits and len(nodes) < max(2, self._needed)

    def _query_due(self, nodes: list[int]) -> None:
        """Query nodes; where others may join, not those that did not answer a short while ago."""
        now = time.monotonic()
        due = [node for node in nodes if not self.waits or now >= self._next_query.get(node, now)]
        if due:
            self._query(due, min(self._timeout, _PATIENCE) if self._bound and self.waits else self._timeout)

    def _query(self, nodes: list[int], timeout: float) -> None:
        # Flower calls a mod only for types of messages that its app handles: all apps train, few handle queries.
        query = RecordDict({RECORD_NAME: NodeQuery().to_record()})
        messages = [Message(query, node, MessageType.TRAIN) for node in nodes]
        replies = list(self._grid.send_and_receive(messages, timeout=timeout))
        reasons = dict.fromkeys(nodes, "no reply")
        for reply in replies:
            node = reply.metadata.src_node_id
            try:
                self._add(node, _description(reply))
                reasons.pop(node, None)
            except FrameError as error:
                reasons[node] = clean(error)
        for node, reason in reasons.items():
            if not self._unanswered[node]:
                _log.warning("node %s did not answer with its name: %s", clean(self._names.get(node, node)), reason)
            self._next_query[node] = time.monotonic() + _PATIENCE * 2 ** min(self._unanswered[node], _MAX_DOUBLINGS)
            self._unanswered[node] += 1

        for message in messages:
            self._count(message, message.metadata.dst_node_id, "down")
        for reply in replies:
            if not reply.has_error():
                self._count(reply, reply.metadata.src_node_id, "up")

    def _add(self, node: int, description: NodeDescription) -> None:
        """Add a node that described itself; raise FrameError if it has the name of another node."""
        name = self._names.get(node) or description.name
        if node not in self._names and name in map(self._names.get, self._connected):
            raise FrameError(f"{name!r} is the name of another node")
        self._names[node] = name
        self._queried.add(node)
        self._unanswered.pop(node, None)
        if self._join and (reason := self._join(name, description)):
            known = [(self._names[other], because) for other, because in self._left_out.items()]
            if (name, reason) not in known:  # a device that connects anew has another id
                _log.warning("node %s is left out: %s", clean(name), clean(reason))
            self._left_out[node] = reason
        else:
            self._joined.add(node)
        self.versions[name] = description.version

    def _count(self, message: Message, node: int, direction: Direction) -> None:
        name = self._names.get(node, str(node))
        self._ledger.add(LedgerEntry(0, name, direction, "ask", 0, message_nbytes(message), 0))


def _description(reply: Message) -> NodeDescription:
    """Return a node's description of itself; raise FrameError if the reply holds none."""
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


@contextmanager
def seeded_samplers(grid: NamedGrid, seed: int, *path: str | int) -> Iterator[None]:
    """Seed the generators that flwr's strategies sample with, so that the same nodes are chosen on every engine.

    Nodes without a name are queried first: meanwhile an engine's threads may draw from the same generators.
    """
    list(grid.get_node_ids())
    with GLOBAL_GENERATORS:
        random.seed(int(derive(seed, *path).integers(2**63)))
        np.random.seed(int(derive(seed, "numpy", *path).integers(2**32)))  # noqa: NPY002
        yield
