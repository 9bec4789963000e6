"""Killed at any call, a client counts no update twice and loses none: the whole protocol, with the real server's side.

Each node is a Runner over its own folder; its connection is a stand-in in this process. It dies before or after a call,
and a new Runner, as a new process would, continues from the folder.
"""

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedpress.client import compress
from fedpress.client.edge.journal import Journal
from fedpress.client.edge.limits import Availability
from fedpress.client.edge.runner import Runner
from fedpress.client.mod.node_state import ClientState
from fedpress.flower.byte_counter import ByteCounter
from fedpress.flower.fleet_api import RunInfo, message_to_proto, remove_content_from_message
from fedpress.flower.mail import IncomingMessage, OutgoingReply
from fedpress.flower.runtime import stamp
from fedpress.protocol.arrays import model_record
from fedpress.server import Compressed
from fedpress.server.aggregation.client_update import FederationLimits
from fedpress.settings.device import LimitSettings, PollingSettings

from ..server.conftest import DirectGrid

NODES, ROUNDS, RUN = 2, 3, 1
UP = "ef | topk(0.1) | ans"
CALLS = ("pull", "take", "fetch", "confirm", "run", "load", "commit", "push", "done")
FAST = PollingSettings(poll_min=0.001, poll_max=0.002)


Dies = Callable[[str, str], bool]  # given the point, and the message that is worked on


class Killed(BaseException):
    """No handler of the client's sees it, as none sees SIGKILL."""


class Node:
    """What outlives a client's process: its folder, and what SuperLink holds for it."""

    def __init__(self, folder: Path, partition: int, dies: Dies) -> None:
        self.folder = folder
        self.partition = partition
        self.dies = dies
        self.deaths = 0
        self.trainings = 0
        self.asked: Message | None = None
        self.handed = False
        self.replies: dict[str, Message] = {}  # by id: the same one twice is one

    def answer(self, message: Message) -> Message:
        """Have a client, or as many as it takes, answer `message`."""
        self.asked, self.handed, self.replies = message, False, {}
        while not self.live():
            self.deaths += 1
        (reply,) = self.replies.values()
        return reply

    def live(self) -> bool:
        """Be one process; return whether the message needs nothing more, False if it was killed."""
        journal = Journal(self.folder)
        try:
            runner = self.make(journal)
            runner._restore()
            while not (self.replies and runner._letter is None and runner._work is None):
                runner._step()
        except Killed:
            return False
        finally:
            journal.close()
        return True

    def make(self, journal: Journal) -> Runner:
        connection = Connection(self)
        for thing, names in ((connection, CALLS), (journal, ("take", "load", "commit", "done"))):
            for name in names:
                if hasattr(thing, name):
                    setattr(thing, name, self.mortal(name, getattr(thing, name)))
        gate = Availability(LimitSettings(), lambda: 0, {})
        return Runner(
            connection, journal, make_app(self), node={"partition-id": self.partition}, polling=FAST, gate=gate
        )  # type: ignore[arg-type]

    def die(self, point: str) -> bool:
        assert self.asked is not None
        return self.dies(point, self.asked.metadata.message_id)

    def mortal(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            if self.die(f"before {name}"):
                raise Killed
            result = call(*args)
            if self.die(f"after {name}"):
                raise Killed
            return result

        return wrapped


class Connection:
    """SuperLink behind the gate: a message is handed out until its objects are asked for, a reply is taken once."""

    def __init__(self, node: Node) -> None:
        self._of = node
        self.node = node.partition + 1
        self.traffic = ByteCounter()

    def connect(self, known: int = 0) -> int:
        return self.node

    def heartbeat(self) -> None: ...

    def leave(self) -> None: ...

    def pull(self) -> IncomingMessage | None:
        message = self._of.asked
        if message is None or self._of.handed:
            return None
        bare = message_to_proto(remove_content_from_message(message))
        tree = get_object_tree(message)
        head = PullMessagesResponse(messages_list=[bare], message_object_trees=[tree])
        return IncomingMessage(message.metadata.message_id, RUN, head.SerializeToString())

    def fetch(self, work: IncomingMessage) -> IncomingMessage:
        self._of.handed = True
        assert self._of.asked is not None
        parts = get_all_nested_objects(self._of.asked)
        return replace(work, objects={name: part.deflate() for name, part in parts.items()})

    def confirm(self, work: IncomingMessage) -> None: ...

    def run(self, run: int) -> RunInfo:
        return RunInfo(9, {})

    def push(self, letter: OutgoingReply) -> bool:
        head = PushMessagesRequest.FromString(letter.head)
        bare = message_from_proto(head.messages_list[0])
        (tree,) = head.message_object_trees
        if self._of.asked is None or letter.to != self._of.asked.metadata.message_id or self._of.replies:
            return False
        reply = bare
        if tree.children:
            content = inflate_object_from_contents(tree.children[0].object_id, dict(letter.objects))
            reply = make_message(bare.metadata, content)
        self._of.replies[bare.metadata.message_id] = reply
        return True


def make_app(node: Node) -> ClientApp:
    app = ClientApp(mods=[compress()])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if node.die("in app"):
            raise Killed
        node.trainings += 1
        ((key, record),) = message.content.array_records.items()
        rng = np.random.default_rng([node.partition, int(message.content["config"]["server-round"])])
        step = rng.normal(size=300).astype(np.float32)
        wanted = context.state.get("wanted") or ArrayRecord()
        wanted[str(len(wanted))] = Array(step)
        context.state["wanted"] = wanted
        trained = ArrayRecord({"w": Array(record["w"].numpy() + step)})
        return Message(RecordDict({key: trained, "m": MetricRecord({"num-examples": 1})}), reply_to=message)

    return app


class DeadlyGrid(DirectGrid):
    """Nodes that die."""

    def __init__(self, folder: Path, dies: Dies) -> None:
        super().__init__(ClientApp(), NODES)
        self.nodes = {}
        for node, partition in self.partition.items():
            (folder / str(partition)).mkdir()
            self.nodes[node] = Node(folder / str(partition), partition, dies)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        replies = []
        for message in messages:
            asked = stamp(Message(metadata=message.metadata, content=message.content), 1)
            asked.metadata.__dict__["_message_id"] = asked.object_id
            replies.append(self.nodes[message.metadata.dst_node_id].answer(asked))
        return replies


def federate(folder: Path, dies: Dies) -> tuple[DeadlyGrid, np.ndarray]:
    """Run a federation; check the books; return what died, and the model."""
    grid = DeadlyGrid(folder, dies)
    model = {"w": np.zeros(300, np.float32)}
    inner = FedAvg(fraction_evaluate=0.0, min_available_nodes=NODES, min_train_nodes=NODES)
    result = Compressed(inner, up=UP, down="none", limits=FederationLimits(min_replies=NODES)).start(
        grid, model_record(model), num_rounds=ROUNDS
    )
    final = result.arrays["w"].numpy()
    total = np.zeros(300)
    for node in grid.nodes.values():
        journal = Journal(node.folder)
        state = journal.load(9)
        journal.close()
        wanted = [array.numpy().astype(np.float64) for array in state["wanted"].values()]
        assert len(wanted) == ROUNDS  # each message was worked on as if once
        memory = ClientState.load(state)
        assert memory.turn == ROUNDS
        total += np.sum(wanted, axis=0) - memory.after["residual"]
    np.testing.assert_allclose(final * NODES, total, atol=1e-4)
    return grid, final


@pytest.fixture(autouse=True)
def _no_disk_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process wrote is there; what a power cut takes is fsync's part, and slow."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return federate(tmp_path_factory.mktemp("whole"), lambda *_: False)[1]


@pytest.mark.parametrize("point", [*(f"{when} {call}" for call in CALLS for when in ("before", "after")), "in app"])
def test_killed_once_a_message_at_each_point(point: str, tmp_path: Path, undisturbed: np.ndarray) -> None:
    seen: set[str] = set()

    def dies(at: str, message: str) -> bool:
        if at != point or message in seen:
            return False
        seen.add(message)  # not when it is done again
        return True

    grid, final = federate(tmp_path, dies)
    assert all(node.deaths >= (1 if point.endswith(" run") else ROUNDS) for node in grid.nodes.values())
    np.testing.assert_array_equal(final, undisturbed)


@pytest.mark.parametrize("seed", range(5))
def test_killed_at_random(seed: int, tmp_path: Path, undisturbed: np.ndarray) -> None:
    dice = random.Random(seed)
    grid, final = federate(tmp_path, lambda *_: dice.random() < 0.08)
    assert sum(node.deaths for node in grid.nodes.values()) > 3
    np.testing.assert_array_equal(final, undisturbed)


def test_on_a_disk_that_is_full_the_round_fails_and_the_next_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, calls = Journal.commit, []

    def full(self: Journal, *args: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        commit(self, *args)

    monkeypatch.setattr(Journal, "commit", full)
    grid = DeadlyGrid(tmp_path, lambda *_: False)
    inner = FedAvg(fraction_evaluate=0.0, min_available_nodes=NODES, min_train_nodes=NODES)
    seen: list[Any] = []
    strategy = Compressed(inner, up=UP, down="none").observe(seen.append)
    result = strategy.start(grid, model_record({"w": np.zeros(300, np.float32)}), num_rounds=ROUNDS)
    assert [(len(done.counted), done.failures) for done in seen[1:]] == [(2, 0), (1, 1), (2, 0)]
    assert result.arrays is not None
    for node in grid.nodes.values():
        journal = Journal(node.folder)
        memory = ClientState.load(journal.load(9))
        journal.close()
        assert memory.turn in (ROUNDS, ROUNDS - 1)
