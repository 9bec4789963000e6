"""Runs a published method other than a codec on the data, the nodes, the sampling and the ledger of fedpress."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray
from torch import nn

from fedpress.client.training.loop import Metrics, train
from fedpress.common.errors import FedpressError, SettingError
from fedpress.common.rng import derive
from fedpress.compression import Layout, Update
from fedpress.compression.frame import shorten
from fedpress.flower.grid import ClosedGrid, EngineGrid
from fedpress.flower.message_size import message_nbytes
from fedpress.protocol.arrays import arrays_of, model_record
from fedpress.protocol.messages import LOSSLESS
from fedpress.server.aggregation.client_update import WorkTime
from fedpress.server.messaging.ledger import Ledger, LedgerEntry
from fedpress.server.messaging.named_grid import NamedGrid, seeded_samplers
from fedpress.server.run.recorder import Recorder
from fedpress.server.strategy.flower_strategies import build_strategy
from fedpress.server.strategy.round_record import CountedReply, Round
from fedpress.settings import RunSettings
from fedpress.settings.codecs import down_codec
from fedpress.simulations.workloads import task
from fedpress.simulations.workloads.task import WorkloadTask

Vector = NDArray[np.float32]
State = dict[str, NDArray[Any]]  # what a node keeps between rounds


@dataclass(frozen=True)
class Reply:
    """A node's reply."""

    node: int
    frame: bytes
    weight: float  # its number of examples


@dataclass(frozen=True)
class Trained:
    """What a node's training made."""

    frame: bytes  # for the server
    metrics: Metrics
    state: State


class Method(ABC):
    """A published method; the server and each node's process make one, and derive equal parts from the seed."""

    def __init__(self, settings: RunSettings, work: WorkloadTask) -> None:
        self.settings, self.work, self.seed = settings, work, settings.run.seed
        initial = work.initial()
        self.layout = Layout.of(initial)
        if self.layout.exact_nbytes:
            raise SettingError("the model must have float tensors only for this method")
        self.initial = self.vector(initial)

    @abstractmethod
    def request(self, node: int, round: int) -> bytes:
        """Return the frame that the server sends to a node, and note that the node has it."""

    @abstractmethod
    def aggregate(self, replies: Sequence[Reply], round: int) -> None:
        """Advance the server's state by a round's replies."""

    @abstractmethod
    def weights(self) -> Vector:
        """Return the weights of the server's exact model, which is evaluated, as that of fedpress is."""

    @abstractmethod
    def train(self, node: int, round: int, frame: bytes, state: State) -> Trained:
        """Train on a node from what `request` returned."""

    def vector(self, model: Update) -> Vector:
        """Return the tensors of a model as one vector."""
        return self.layout.flatten(model)[0]

    def tensors(self, vector: Vector) -> Update:
        """Return a vector as the tensors of the model."""
        return self.layout.unflatten(np.ascontiguousarray(vector, np.float32), np.zeros(0, np.uint8))

    def fit(self, model: nn.Module, node: int, round: int) -> Metrics:
        """Train `model` in place on a node's examples, as fedpress does."""
        server, training = self.settings.server, self.settings.training
        examples, device = self.work.examples(node), self.settings.run.device
        place = {"round": round, "rounds": server.rounds, "seed": self.seed, "partition": node}
        return train(model, examples, training, **place, device=device)

    def fit_weights(self, start: Vector, node: int, round: int) -> tuple[Vector, Metrics]:
        """Return the weights that training from `start` makes on a node, and its metrics."""
        from torch import from_numpy

        model = self.work.model()
        model.load_state_dict({name: from_numpy(array) for name, array in self.tensors(start).items()})
        metrics = self.fit(model, node, round)
        return self.vector({name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}), metrics


class Downlink:
    """Sends a vector that nodes start from: float32 with the codec `none`, else deltas against what each node holds."""

    def __init__(self, method: Method, start: Vector) -> None:
        spec = method.settings.server.down
        self._codec, self._whole = down_codec(spec), spec == LOSSLESS
        self._method, self._start = method, start
        self._held: dict[int, Vector] = {}

    def frame(self, node: int, vector: Vector, round: int) -> bytes:
        """Return the frame of `vector` for a node, and note that it has it."""
        if self._whole:
            return vector.astype("<f4").tobytes()
        held, layout = self._held.get(node, self._start), self._method.layout
        delta = self._method.tensors(vector - held)
        rng = derive(self._method.seed, "downlink", round, node)
        frame = shorten(self._codec.encode(delta, self._codec.init(layout), rng)[0])
        self._held[node] = self._follow(held, frame)
        return frame

    def held(self, node: int, vector: Vector) -> Vector:
        """Return what a node has of `vector`, which it was sent last."""
        return vector if self._whole else self._held[node]

    def read(self, frame: bytes, state: State) -> Vector:
        """Return the vector that a node has after a frame, and keep it in the node's state."""
        if self._whole:
            return np.frombuffer(frame, "<f4").astype(np.float32)
        state["held"] = self._follow(state.get("held", self._start), frame)
        return state["held"]

    def _follow(self, held: Vector, frame: bytes) -> Vector:
        return held + self._method.vector(self._codec.decode(frame, self._method.layout))


def mean(replies: Sequence[Reply], vectors: Sequence[Vector]) -> Vector:
    """Return the mean of the replies' vectors, weighted by their examples."""
    weights = np.array([reply.weight for reply in replies])
    return np.average(np.stack(vectors), axis=0, weights=weights).astype(np.float32)


def apps(make: type[Method]) -> tuple[ServerApp, ClientApp]:
    """Return the ServerApp and the ClientApp of a method."""
    server_app, client_app = ServerApp(), ClientApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        settings = RunSettings.from_config(context.run_config)
        grid = grid if isinstance(grid, EngineGrid) else ClosedGrid(grid, settings.clients)
        _Federation(make(settings, task(settings)), grid).run()

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        method = _made(make, tuple(sorted(context.run_config.items())))
        request = message.content.config_records["request"]
        node, state = int(context.node_config["partition-id"]), arrays_of(context.state.array_records.get("peer"))
        began = time.perf_counter()
        trained = method.train(node, request["round"], request["frame"], dict(state))  # type: ignore[arg-type]
        if trained.state:
            context.state["peer"] = model_record(trained.state)
        metrics = {**trained.metrics, "seconds": time.perf_counter() - began}
        content = {"reply": ConfigRecord({"frame": trained.frame}), "metrics": MetricRecord(metrics)}
        return Message(RecordDict(content), reply_to=message)

    return server_app, client_app


@lru_cache(maxsize=2)
def _made(make: type[Method], config: tuple[tuple[str, Any], ...]) -> Method:
    settings = RunSettings.from_config(dict(config))
    return make(settings, task(settings))


class _Federation:
    """The rounds of a method, recorded as those of fedpress."""

    def __init__(self, method: Method, grid: Grid) -> None:
        self._method, self._settings = method, method.settings
        self._ledger = Ledger()
        self._grid = NamedGrid(grid, self._settings.server.timeout, self._ledger)
        self._strategy = build_strategy(self._settings)
        self._recorder = Recorder(Path(self._settings.run.out), self._settings, self._ledger)

    def run(self) -> None:
        """Run all rounds; round 0 evaluates the initial model."""
        for number in range(self._settings.server.rounds + 1):
            began = time.monotonic()
            counted = self._train(number) if number else {}
            weights = self._method.tensors(self._method.weights())
            done = Round(
                number=number,
                model=weights,
                evaluation=MetricRecord(dict(self._method.work.evaluate(weights))),
                evaluated=None,
                node_evaluations={},
                groups={},
                counted=counted,
                failures=0,
                seconds=0.0,
            )
            self._recorder(replace(done, seconds=time.monotonic() - began))
        self._recorder.finish({}, weights)

    def _train(self, number: int) -> dict[str, CountedReply]:
        """Train a round, with the nodes that fedpress would choose."""
        with seeded_samplers(self._grid, self._settings.run.seed, "train", number, 0):
            configured = self._strategy.configure_train(number, ArrayRecord(), ConfigRecord(), self._grid)
            nodes = [message.metadata.dst_node_id for message in configured]
        replies, counted = [], {}
        requests = (self._request(node, number) for node in nodes)
        for message in self._grid.send_and_receive(requests, timeout=self._settings.server.timeout):
            name = self._grid.name(message.metadata.src_node_id)
            if message.has_error():
                raise FedpressError(f"round {number}: node {name} failed: {message.error.reason}")
            frame, metrics = message.content.config_records["reply"]["frame"], message.content.metric_records["metrics"]
            self._count(message, name, "up", frame, number)  # type: ignore[arg-type]
            weight, seconds = float(metrics["num-examples"]), float(metrics["seconds"])  # type: ignore[arg-type]
            replies.append(Reply(int(name), frame, weight))  # type: ignore[arg-type]
            loss = float(metrics["train_loss"])  # type: ignore[arg-type]
            counted[name] = CountedReply("", weight, weight, 0.0, WorkTime(seconds), loss)
        self._method.aggregate(replies, number)
        return counted

    def _request(self, node: int, number: int) -> Message:
        name = self._grid.name(node)
        frame = self._method.request(int(name), number)
        content = RecordDict({"request": ConfigRecord({"round": number, "frame": frame})})
        message = Message(content, node, MessageType.TRAIN)
        self._count(message, name, "down", frame, number)
        return message

    def _count(self, message: Message, name: str, direction: Any, frame: bytes, number: int) -> None:
        plain = self._method.layout.nbytes if frame else 0
        nbytes = message_nbytes(message)
        self._ledger.add(LedgerEntry(number, name, direction, "train", frame=len(frame), message=nbytes, plain=plain))
