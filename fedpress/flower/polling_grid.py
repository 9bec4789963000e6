"""The Grid of a deployed run: it polls SuperLink at once and often, while flwr's own waits for three seconds.

Replies are received independently: one whose parts arrive over a slow link does not delay others. The server's file
assigns names to node ids; names that nodes report are not used. flwr's Grid has no public method to poll without
waiting.
"""

import json
import logging
import math
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

SENT, ARRIVED = "sent", "arrived"  # signal files: messages sent to nodes, and replies from them
_MIN_PAUSE, _MAX_PAUSE, _GROWTH = 0.01, 0.5, 1.5  # seconds between two polls, and their growth while no reply arrives
_MIN_GRACE = 10.0  # seconds for the last replies to come
_MAX_SILENCE = 2.0  # seconds between two polls without a signal


class PollingGrid(GridWrapper):
    """Wraps the Grid that flwr gives a deployed ServerApp.

    Parameters
    ----------
    grid : HttpGrid
        That Grid.
    nodes : Path | None
        The file with the node id of each name; None if the server assigns no names.
    largest : int
        Greatest size of a reply, bytes.
    signals : Path | None
        The folder of the signal files by which this process and the server's proxy notify each other of messages.
    close_at : float
        Share of the replies after which others are waited for as long again, but at least 10 seconds, and no longer.
    """

    def __init__(
        self, grid: HttpGrid, nodes: Path | None, largest: int, signals: Path | None = None, *, close_at: float = 1.0
    ) -> None:
        super().__init__(grid)
        self._http = grid
        self._nodes = nodes
        self._largest = largest
        self._close_at = close_at
        self._sent, self._arrived = (SignalFile(signals / name) if signals else None for name in (SENT, ARRIVED))

    def names(self) -> Mapping[int, str] | None:
        return None if self._nodes is None else read_names(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        names = self._grid.push_messages(messages)
        if self._sent:
            self._sent.send()
        return names

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        sent = list(messages)
        names = self.push_messages(sent)
        receivers = {name: one.metadata.dst_node_id for name, one in zip(names, sent, strict=False) if name}
        waiting = set(receivers)
        began = time.monotonic()
        deadline = math.inf if timeout is None else began + timeout
        closing = False
        pending: list[_PendingReply] = []
        replies: list[Message] = []
        pause, now = _MIN_PAUSE, began
        while waiting or pending:
            signal = self._arrived.last if self._arrived else 0
            new = [one for one in self._poll(waiting) if one.request_id in waiting]
            waiting -= {one.request_id for one in new}
            pending += new
            finished = [one for one in pending if one.fetch()]
            pending = [one for one in pending if not one.done]
            replies += [one.message(receivers[one.request_id]) for one in finished]
            now = time.monotonic()
            failures = sum(reply.has_error() for reply in replies)  # they must not shorten the time of the others
            enough = max(1, math.floor(self._close_at * (len(receivers) - failures)))
            if not closing and len(replies) - failures >= enough:
                closing = True
                deadline = min(deadline, now + max(now - began, _MIN_GRACE))
            if now >= deadline:
                break
            if waiting or pending:
                pause = _MIN_PAUSE if finished else min(_MAX_PAUSE, pause * _GROWTH)
                self._wait(pause, signal)
        unanswered = {receivers[name] for name in (*waiting, *(one.request_id for one in pending))}
        self.cut_off = frozenset(unanswered if timeout is None or now < began + timeout else ())
        return replies

    def _wait(self, pause: float, signal: int) -> None:
        """Wait until the next poll."""
        if self._arrived is None:
            time.sleep(pause)
            return
        until = time.monotonic() + _MAX_SILENCE
        while self._arrived.last == signal and time.monotonic() < until:
            time.sleep(_MIN_PAUSE)

    def _poll(self, waiting: set[str]) -> "list[_PendingReply]":
        if not waiting:
            return []
        response = self._http._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=waiting))
        pairs = zip(response.messages_list, response.message_object_trees, strict=True)
        return [_PendingReply(self._http, proto, tree, self._largest) for proto, tree in pairs]


def read_names(path: Path) -> dict[int, str]:
    """Return names by node id, from the file of a server that admits nodes by their keys."""
    try:
        ids: dict[str, int] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return {node: name for name, node in ids.items()}


class _PendingReply:
    """A reply that is not complete yet: its parts are fetched one by one as they reach SuperLink."""

    def __init__(self, grid: HttpGrid, proto: Any, tree: Any, largest: int) -> None:
        self._client, self._node, self._run = grid._runtime_client, grid.node, grid.run.run_id
        self._proto = proto
        self._missing = list(dict.fromkeys(part.object_id for part in iterate_object_tree(tree)))
        self._parts: dict[str, bytes] = {}
        self._remaining = largest
        self._failure = ""
        self._pull = make_pull_object_fn_protobuf(self._client.PullObject, self._node, self._run)
        self.request_id: str = proto.metadata.reply_to_message_id

    @property
    def done(self) -> bool:
        """Whether the reply is complete, or has failed."""
        return not self._missing or bool(self._failure)

    def fetch(self) -> bool:
        """Fetch the parts that have arrived; return whether the reply is done."""
        try:
            while not self.done:
                part = self._pull(self._missing[0])
                self._remaining -= len(part)
                if self._remaining < 0:
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
        """Return the reply or an error message, from `node`, which the request went to, whatever the reply claims."""
        name = self._proto.metadata.message_id
        self._client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self._node, run_id=self._run, message_object_id=name)
        )
        metadata = metadata_from_proto(self._proto.metadata)
        set_metadata(metadata, src_node_id=node)
        message = None
        if not self._failure:
            try:
                message = cast("Message", inflate_object_from_contents(name, self._parts))
            except Exception as error:  # noqa: BLE001  untrusted bytes, for which flwr may raise anything
                self._failure = f"it cannot be read: {error}"
        if message is None:
            return make_message(metadata, None, Error(ErrorCode.MESSAGE_UNAVAILABLE, self._failure))
        set_metadata(message.metadata, src_node_id=node, reply_to_message_id=self.request_id, message_id=name)
        return message
