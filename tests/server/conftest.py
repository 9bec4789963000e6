"""A Grid that calls a ClientApp in this process, so that tests can look at every node and lose any reply."""

import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedpress.client import compress
from fedpress.client.mod.mod import Mod
from fedpress.compression import Layout, Update, parse
from fedpress.compression.frame import has_base
from fedpress.flower.grid import EngineGrid
from fedpress.flower.runtime import RAISED, identify
from fedpress.protocol.folding import fold, unfold
from fedpress.protocol.messages import RECORD_NAME

PLAIN = {"up": "none", "down": "none"}  # codecs
WANTED = "wanted"  # what a node's training asked for, kept in its own state for the tests


def make_app(
    mod: Mod | None = None,
    *,
    mods: Sequence[Any] = (),
    frozen: str = "",
    thawed_in: tuple[int, ...] = (),
    remember: bool = True,
) -> ClientApp:
    """An app whose training adds noise of the node's own to every float, and one to every counter.

    The tensor `frozen` stays as it is, but in the rounds `thawed_in`.
    """
    app = ClientApp(mods=list(mods) or [mod or compress()])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        assert list(message.content.config_records) == ["config"]  # the app sees nothing of what is not its own
        ((key, record),) = message.content.array_records.items()
        model = {name: array.numpy() for name, array in record.items()}
        round_ = message.content["config"]["server-round"]
        rng = np.random.default_rng([context.node_config["partition-id"], round_])
        trained, steps = {}, {}
        for name, array in model.items():
            step = rng.normal(0, 0.1, array.shape).astype(array.dtype) if array.dtype.kind == "f" else array * 0 + 1
            step = step * 0 if name == frozen and round_ not in thawed_in else step
            trained[name] = np.asarray(array + step)
            steps[name] = np.asarray(trained[name] - array) if array.dtype.kind == "f" else trained[name]
        # What left the app is kept, so that a test can add it up.
        wanted = context.state.get(WANTED) or ArrayRecord()
        turn = len(wanted) // len(model)  # a round may be repeated
        for name, step in steps.items():
            wanted[f"{turn}:{round_}:{name}"] = Array(step)
        if remember:
            context.state[WANTED] = wanted
        metrics = {"num-examples": 10 * (context.node_config["partition-id"] + 1), "train_loss": 1.0}
        content = {key: ArrayRecord({n: Array(a) for n, a in trained.items()}), "metrics": MetricRecord(metrics)}
        return Message(RecordDict(content), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        ((_, record),) = message.content.array_records.items()
        total = float(sum(array.numpy().astype(np.float64).sum() for array in record.values()))
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "total": total})}), reply_to=message)

    return app


class DirectGrid(EngineGrid):
    """Nodes in this process. Ids are random, as Flower's are; replies come in any order.

    Tests see messages and replies as they are before they are folded for the wire.
    """

    def __init__(self, app: ClientApp, nodes: int, *, seed: int = 0, ordered: bool = False) -> None:
        identify(run_id=1)
        shuffle = random.Random(seed)
        self.app = app
        self.ordered = ordered  # for a bare strategy, which takes replies as they come
        self.partition = {shuffle.getrandbits(63): i for i in shuffle.sample(range(nodes), nodes)}
        self.delivered: dict[int, bool] = {}  # whether a node's last trained reply reached the server
        self.contexts = {
            node: Context(1, node, {"partition-id": i, "num-partitions": nodes}, RecordDict(), {})
            for node, i in self.partition.items()
        }
        self.shuffle = shuffle
        self.sent: list[Message] = []
        self.before: Callable[[Message], bool] = lambda _: True  # False: the message never reaches its node
        self.after: Callable[[Message], bool] = lambda _: True  # False: the reply never reaches the server

    def context(self, partition: int) -> Context:
        return next(c for c in self.contexts.values() if c.node_config["partition-id"] == partition)

    def decode(self, spec: str, frame: bytes, layout: Layout) -> Update:
        """Decode the frame of the reply that is on its way: to that of the newest request."""
        version = self.sent[-1].content[RECORD_NAME]["version"]
        return parse(spec).decode(frame, layout, base=version if has_base(frame) else b"")

    def most_nodes(self) -> int | None:
        return len(self.partition)

    def set_run(self, run: object) -> None: ...

    @property
    def run(self) -> object:
        return None

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        if self.ordered:
            return sorted(self.partition, key=self.partition.__getitem__)
        return self.shuffle.sample(list(self.partition), len(self.partition))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        assert iter(messages) is not messages  # Flower's own grids go through them twice
        replies = []
        for message in messages:
            plain = Message(metadata=message.metadata, content=RecordDict(dict(message.content)))
            unfold(plain.content)
            self.sent.append(plain)
            if not self.before(plain):
                continue
            own = Message(metadata=message.metadata, content=copy(message.content))
            own.metadata.__dict__["_message_id"] = uuid.uuid4().hex
            try:
                reply = self.app(own, self.contexts[message.metadata.dst_node_id])
            except Exception as error:
                reply = Message(Error(RAISED, repr(error)), reply_to=own)
            folded = reply.has_content() and unfold(reply.content)
            arrived = self.after(reply)
            if not reply.has_error() and reply.content.array_records:
                self.delivered[self.partition[message.metadata.dst_node_id]] = arrived
            if folded:
                fold(reply.content)
            if arrived:
                replies.append(reply)
        if self.ordered:
            return sorted(replies, key=lambda reply: self.partition[reply.metadata.src_node_id])
        self.shuffle.shuffle(replies)
        return replies


def copy(content: RecordDict) -> RecordDict:
    """Copy the records, as the wire would."""
    kinds = {ArrayRecord: dict, ConfigRecord: dict, MetricRecord: dict}
    return RecordDict({key: type(record)(kinds[type(record)](record)) for key, record in content.items()})


@pytest.fixture
def make_grid() -> Callable[..., DirectGrid]:
    """Make a grid of so many nodes that run `make_app()`, or another app."""

    def make(nodes: int, *, app: ClientApp | None = None, seed: int = 0, ordered: bool = False) -> DirectGrid:
        return DirectGrid(app or make_app(), nodes, seed=seed, ordered=ordered)

    return make


@pytest.fixture
def wanted() -> Callable[[DirectGrid, int, Layout], list[np.ndarray]]:
    """Return every update that a node's app asked for, flattened."""

    def read(grid: DirectGrid, partition: int, layout: Layout) -> list[np.ndarray]:
        record = grid.context(partition).state.get(WANTED) or {}
        rows: dict[str, dict[str, np.ndarray]] = {}
        for key, array in record.items():
            when, _, name = key.split(":")
            rows.setdefault(when, {})[name] = array.numpy()
        return [layout.flatten(row)[0] for row in rows.values()]

    return read


@pytest.fixture
def floats(model: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's float32 tensors."""
    return {name: array for name, array in model.items() if array.dtype == np.float32}


@pytest.fixture
def model() -> dict[str, np.ndarray]:
    """A model with a matrix, a bias, a float64 scalar and an integer counter."""
    rng = np.random.default_rng(7)
    return {
        "weight": rng.normal(size=(40, 30)).astype(np.float32),
        "bias": rng.normal(size=30).astype(np.float32),
        "scale": np.array(1.5),
        "steps": np.array(3),
    }
