"""A deployed run's Grid: SuperLink asked at once and often, where flwr's own waits for three seconds.

Replies are taken in as they come: one whose parts are still on their way over a slow link holds up no other. Names are
bound to node ids by a file that the server keeps, never by what a node says of itself. flwr's
Grid has no public way to ask without waiting.
"""

import json
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from flwr.app import Error, Message
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
)
from flwr.superlink.grid import HttpGrid

from fedpress.common.logs import LOGGER
from fedpress.flower.grid import GridWrapper
from fedpress.flower.metadata import set_metadata
from fedpress.flower.signal_file import SignalFile

_log = logging.getLogger(LOGGER)

SENT, ARRIVED = "sent", "arrived"  # bells: of this side for the nodes, and of the gate for this side
_LEAST, _MOST, _GROWTH = 0.01, 0.5, 1.5  # seconds between two questions, and how they grow while nothing comes
_QUIET = 2.0  # seconds between two questions while the gate's bell is silent


class PollingGrid(GridWrapper):
    """Wraps the Grid that flwr gives a deployed ServerApp.

    Parameters
    ----------
    grid : HttpGrid
        That Grid.
    nodes : Path | None
        The file that says which node id has which name; None if nodes have no names but their own.
    largest : int
        Bytes of a reply at most.
    bells : Path | None
        The folder of the bells by which the gate says that something came, and is told that something went out.
    """

    def __init__(self, grid: HttpGrid, nodes: Path | None, largest: int, bells: Path | None = None) -> None:
        super().__init__(grid)
        self._http = grid
        self._nodes = nodes
        self._largest = largest
        self._sent, self._arrived = (SignalFile(bells / name) if bells else None for name in (SENT, ARRIVED))

    def names(self) -> Mapping[int, str] | None:
        return None if self._nodes is None else read_names(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        names = self._grid.push_messages(messages)
        if self._sent:
            self._sent.ring()
        return names

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        taken = list(messages)
        names = self.push_messages(taken)
        asked = {name: one.metadata.dst_node_id for name, one in zip(names, taken, strict=False) if name}
        waiting = set(asked)
        deadline = None if timeout is None else time.monotonic() + timeout
        coming: list[_Coming] = []
        replies: list[Message] = []
        pause = _LEAST
        while waiting or coming:
            rung = self._arrived.rung if self._arrived else 0
            new = [one for one in self._ask(waiting) if one.answers in waiting]
            waiting -= {one.answers for one in new}
            coming += new
            whole = [one for one in coming if one.fetch()]
            coming = [one for one in coming if not one.done]
            replies += [one.message(asked[one.answers]) for one in whole]
            if deadline is not None and time.monotonic() >= deadline:
                break
            if waiting or coming:
                pause = _LEAST if whole else min(_MOST, pause * _GROWTH)
                self._rest(pause, rung)
        return replies

    def _rest(self, pause: float, rung: int) -> None:
        """Wait until it is worth asking again."""
        if self._arrived is None:
            time.sleep(pause)
            return
        until = time.monotonic() + _QUIET
        while self._arrived.rung == rung and time.monotonic() < until:
            time.sleep(_LEAST)

    def _ask(self, waiting: set[str]) -> "list[_Coming]":
        if not waiting:
            return []
        answer = self._http._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=waiting))
        pairs = zip(answer.messages_list, answer.message_object_trees, strict=True)
        return [_Coming(self._http, proto, tree, self._largest) for proto, tree in pairs]


def read_names(path: Path) -> dict[int, str]:
    """Return names by node id, as a server that admits nodes by their keys wrote them down."""
    try:
        told: dict[str, int] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return {node: name for name, node in told.items()}


class _Coming:
    """A reply that is known of and not here yet: its parts are fetched one by one as they reach SuperLink."""

    def __init__(self, grid: HttpGrid, proto: Any, tree: Any, largest: int) -> None:
        self._client, self._node, self._run = grid._runtime_client, grid.node, grid.run.run_id
        self._proto = proto
        self._missing = list(dict.fromkeys(part.object_id for part in iterate_object_tree(tree)))
        self._parts: dict[str, bytes] = {}
        self._room = largest
        self._failure = ""
        self._pull = make_pull_object_fn_protobuf(self._client.PullObject, self._node, self._run)
        self.answers: str = proto.metadata.reply_to_message_id

    @property
    def done(self) -> bool:
        """Whether it is here, or will never be."""
        return not self._missing or bool(self._failure)

    def fetch(self) -> bool:
        """Fetch what there is of it; return whether it is done."""
        try:
            while not self.done:
                part = self._pull(self._missing[0])
                self._room -= len(part)
                if self._room < 0:
                    self._failure = "it is larger than a reply can be"
                    self._parts.clear()
                    break
                self._parts[self._missing.pop(0)] = part
        except ObjectUnavailableError:
            return False
        except ObjectPullError as error:
            self._failure = f"its upload was broken off: {error}"
        return True

    def message(self, node: int) -> Message:
        """Return it, or an error in its place; `node` is who was asked, which is not always what is written inside."""
        name = self._proto.metadata.message_id
        self._client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self._node, run_id=self._run, message_object_id=name)
        )
        told = metadata_from_proto(self._proto.metadata)
        set_metadata(told, src_node_id=node)
        message = None
        if not self._failure:
            try:
                message = cast("Message", inflate_object_from_contents(name, self._parts))
            except Exception as error:  # noqa: BLE001  bytes from outside: flwr raises whatever they lead it to
                self._failure = f"it cannot be read: {error}"
        if message is None:
            return make_message(told, None, Error(ErrorCode.MESSAGE_UNAVAILABLE, self._failure))
        set_metadata(message.metadata, src_node_id=node, reply_to_message_id=self.answers, message_id=name)
        return message
