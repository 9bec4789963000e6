"""The deployed grid: replies as they come, names by the file, and nobody who holds up the others."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.server.superlink.linkstate.utils import create_message_error_unavailable_res_message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.superlink.grid import HttpGrid

from fedpress.flower.polling_grid import ARRIVED, SENT, PollingGrid
from fedpress.flower.runtime import empty_run, identify
from fedpress.flower.signal_file import SignalFile
from fedpress.server.messaging.ledger import Ledger
from fedpress.server.messaging.named_grid import NamedGrid


class Link:
    """A SuperLink of few words: what flwr's grid and its client are asked for."""

    def __init__(self) -> None:
        self.node = Node(node_id=1)
        self.run = empty_run(7)
        self.nodes: list[int] = []
        self.sent: list[Message] = []
        self.parts: dict[str, bytes] = {}
        self.ready: list[tuple[Any, Any]] = []
        self.asked = 0
        self.confirmed: list[str] = []
        self.gone: set[str] = set()

    @property
    def _runtime_client(self) -> "Link":
        return self

    def get_node_ids(self) -> list[int]:
        return self.nodes

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        self.sent += messages
        for message in self.sent:
            message.metadata.__dict__["_message_id"] = message.object_id
        return [message.metadata.message_id for message in self.sent]

    def reply(self, to: Message, content: RecordDict, *, whole: bool = True) -> dict[str, bytes]:
        """Make the reply known; return its parts, which are here already if it is `whole`."""
        message = Message(content, reply_to=to)
        message.metadata.__dict__["_message_id"] = message.object_id
        with no_object_id_recompute():
            parts = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
            tree = get_object_tree(message)
        bare = Message(RecordDict(), reply_to=to)
        bare.metadata.__dict__["_message_id"] = message.object_id
        self.ready.append((message_to_proto(bare), tree))
        if whole:
            self.parts |= parts
        return parts

    def report_gone(self, to: Message) -> None:
        """Reply in place of a node that is gone, as SuperLink does."""
        error = create_message_error_unavailable_res_message(to.metadata, "node_unavail")
        error.metadata.__dict__["_message_id"] = error.object_id
        with no_object_id_recompute():
            self.parts |= {name: part.deflate() for name, part in get_all_nested_objects(error).items()}
            self.ready.append((message_to_proto(error), get_object_tree(error)))

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:
        self.asked += 1
        ready, self.ready = self.ready, []
        return PullAppMessagesResponse(
            messages_list=[proto for proto, _ in ready], message_object_trees=[tree for _, tree in ready]
        )

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:
        content = self.parts.get(request.object_id, b"")
        found = request.object_id not in self.gone
        return PullObjectResponse(object_found=found, object_available=bool(content), object_content=content)

    def ConfirmMessageReceived(self, request: ConfirmMessageReceivedRequest) -> None:
        self.confirmed.append(request.message_object_id)


@pytest.fixture
def link() -> Link:
    identify(7)
    return Link()


def grid_of(link: Link, nodes: Path | None = None, largest: int = 1 << 20, signals: Path | None = None) -> PollingGrid:
    return PollingGrid(cast("HttpGrid", link), nodes, largest, signals)


def question(node: int) -> Message:
    return Message(RecordDict({"c": ConfigRecord({"node": node})}), node, "train")


def answer(size: int = 10) -> RecordDict:
    return RecordDict({"a": ArrayRecord({"x": Array(np.full(size, 7.0))})})


@pytest.fixture
def then(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """What happens while the grid sleeps, by how often it has."""

    def set_up(happens: Callable[[int], None]) -> None:
        slept = 0

        def sleep(_: float) -> None:
            nonlocal slept
            slept += 1
            happens(slept)

        monkeypatch.setattr("fedpress.flower.polling_grid.time.sleep", sleep)

    return set_up


def test_a_reply_comes_back_as_it_was(link: Link, then: Any) -> None:
    then(lambda count: link.reply(link.sent[0], answer()) if count == 3 else None)
    (reply,) = grid_of(link).send_and_receive([question(5)], timeout=60)
    assert reply.content["a"]["x"].numpy().tolist() == [7.0] * 10  # type: ignore[index]
    assert reply.metadata.src_node_id == 5
    assert link.confirmed == [reply.metadata.message_id]


def test_a_silent_node_does_not_keep_a_round_open(link: Link, then: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once most have replied, the others have as long again; with all of the replies nothing is left out."""
    for close_at, replies, least, most in ((0.8, 4, 60, 200), (1.0, 4, 3600, 3700), (0.8, 3, 3600, 3700)):
        clock = [0.0]
        monkeypatch.setattr("fedpress.flower.polling_grid.time.monotonic", lambda clock=clock: clock[0])
        link.sent.clear()

        def happens(count: int, clock: list[float] = clock, replies: int = replies) -> None:
            clock[0] += 10
            if 3 <= count < 3 + replies:
                link.reply(link.sent[count - 3], answer())

        then(happens)
        grid = PollingGrid(cast("HttpGrid", link), None, 1 << 20, close_at=close_at)
        assert len(grid.send_and_receive([question(node) for node in range(5)], timeout=3600)) == replies
        assert least <= clock[0] <= most
        assert grid.cut_off == ({replies} if clock[0] < 3600 else set()), "whom nobody waited for until the timeout"


def test_nodes_that_fail_do_not_shorten_the_time_of_others(
    link: Link, then: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("fedpress.flower.polling_grid.time.monotonic", lambda: clock[0])

    def happens(count: int) -> None:
        clock[0] += 10
        if count <= 8:
            link.report_gone(link.sent[count - 1])
        elif count in (60, 61):
            link.reply(link.sent[count - 52], answer())

    then(happens)
    grid = PollingGrid(cast("HttpGrid", link), None, 1 << 20, close_at=0.8)
    replies = grid.send_and_receive([question(node) for node in range(10)], timeout=3600)
    assert [reply.has_error() for reply in replies] == [True] * 8 + [False] * 2


def test_a_slow_upload_holds_up_nobody(link: Link, then: Any) -> None:
    slow: dict[str, bytes] = {}
    order: list[int] = []

    def happens(count: int) -> None:
        if count == 1:
            slow.update(link.reply(link.sent[0], answer(), whole=False))
        elif count == 2:
            link.reply(link.sent[1], answer(3))
        elif count == 4:
            order.append(len(link.confirmed))
            link.parts |= slow

    then(happens)
    replies = grid_of(link).send_and_receive([question(5), question(6)], timeout=60)
    assert [reply.metadata.src_node_id for reply in replies] == [6, 5]
    assert order == [1], "the second reply was in before the first one's parts were"


def test_an_upload_that_was_broken_off_is_an_error(link: Link, then: Any) -> None:
    def happens(count: int) -> None:
        if count == 1:
            link.gone |= set(link.reply(link.sent[0], answer(), whole=False))

    then(happens)
    (reply,) = grid_of(link).send_and_receive([question(5)], timeout=60)
    assert "broken off" in reply.error.reason
    assert reply.metadata.src_node_id == 5


def test_superlink_s_word_on_a_node_that_is_gone_counts_as_that_node_s(link: Link, then: Any) -> None:
    def happens(count: int) -> None:
        if count == 1:
            link.report_gone(link.sent[0])

    then(happens)
    (reply,) = grid_of(link).send_and_receive([question(5)], timeout=60)
    assert reply.has_error()
    assert reply.metadata.src_node_id == 5


@pytest.mark.parametrize("broken", ["large", "garbage"])
def test_a_reply_that_cannot_be_is_an_error(link: Link, then: Any, broken: str) -> None:
    def happens(count: int) -> None:
        if count == 1:
            parts = link.reply(link.sent[0], answer(1000 if broken == "large" else 10))
            if broken == "garbage":
                link.parts |= dict.fromkeys(parts, b"\x00nonsense")

    then(happens)
    (reply,) = grid_of(link, largest=2000).send_and_receive([question(5)], timeout=60)
    assert reply.has_error()
    assert reply.metadata.src_node_id == 5


def test_after_the_timeout_it_is_not_waited_for(link: Link) -> None:
    assert grid_of(link).send_and_receive([question(5)], timeout=0.05) == []


def test_without_a_signal_no_request_is_sent(link: Link, tmp_path: Path, then: Any) -> None:
    signal = SignalFile(tmp_path / ARRIVED)
    signal.send()

    def happens(count: int) -> None:
        if count == 50:
            link.reply(link.sent[0], answer())
            signal.send()

    then(happens)
    assert len(grid_of(link, signals=tmp_path).send_and_receive([question(5)], timeout=60)) == 1
    assert link.asked == 2
    assert SignalFile(tmp_path / SENT).last


def test_names_are_those_of_the_file_and_it_is_read_again(link: Link, tmp_path: Path) -> None:
    nodes = tmp_path / "nodes.json"
    named = NamedGrid(grid_of(link, nodes), 1, Ledger())
    link.nodes = [11, 12, 13]
    assert named.get_node_ids() == []  # nobody is bound yet, and nobody is asked
    nodes.write_text(json.dumps({"b": 11, "a": 12}))
    assert [named.name(node) for node in named.get_node_ids()] == ["a", "b"]
    nodes.write_text(json.dumps({"b": 11, "a": 14}))  # issued anew: another key, another id
    link.nodes = [11, 13, 14]
    assert [(node, named.name(node)) for node in named.get_node_ids()] == [(14, "a"), (11, "b")]
    assert not link.sent
