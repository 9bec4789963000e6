"""The apps that the survival tests run: ours, which stop where a test wants them to and note what they did.

Processes find this module on their path, and in FEDPRESS_PROOF the folder in which they and the test meet:

    POINT.hold       made by the test: whoever comes to the point waits until it is gone
    POINT.reached    made by whoever waits there, with its process id
    accepted.jsonl   a line for each round that was aggregated, the last one of a round counts: its votes, in order
"""

import base64
import importlib.util
import json
import os
import pkgutil
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import zstandard
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from torch import nn

from fedpress.client import app as ours
from fedpress.client import compress
from fedpress.client.training.loop import evaluate
from fedpress.compression import Layout
from fedpress.compression.frame import FrameHead, put_head, read_frame, write_frame
from fedpress.protocol.folding import fold, unfold
from fedpress.protocol.messages import FRAME_STYPE, RECORD_NAME, answer_of
from fedpress.settings import RunSettings
from fedpress.settings.node import NodeConfig

WANTED = "wanted"  # sums of all that training asked for, kept with the node's own state
MEET = "FEDPRESS_PROOF"
DEALT = 40  # nodes that the digits are dealt out to: 36 examples each


class Digits:
    """Handwritten digits, dealt out the same way however many nodes there are; a network of `width` hidden units.

    Read from scikit-learn's file without scikit-learn: forty processes that import it would do little else.
    """

    def __init__(self, seed: int, width: int) -> None:
        (package,) = importlib.util.find_spec("sklearn").submodule_search_locations
        rows = np.loadtxt(Path(package) / "datasets" / "data" / "digits.csv.gz", np.float32, delimiter=",")
        x, y = torch.from_numpy(rows[:, :64] / 16), torch.from_numpy(rows[:, 64]).long()
        self._test = SimpleNamespace(x=x[1440:], y=y[1440:])
        self._parts = [SimpleNamespace(x=x[i:1440:DEALT], y=y[i:1440:DEALT]) for i in range(DEALT)]
        self._seed, self._width = seed, width

    def model(self) -> nn.Module:
        torch.manual_seed(self._seed)
        return nn.Sequential(nn.Linear(64, self._width), nn.ReLU(), nn.Linear(self._width, 10))

    def initial(self) -> dict[str, np.ndarray]:
        return {name: tensor.numpy() for name, tensor in self.model().state_dict().items()}

    def examples(self, node: int) -> SimpleNamespace:
        return self._parts[node]

    def holdout(self, node: int) -> SimpleNamespace:
        return SimpleNamespace(x=self._parts[node].x[:0], y=self._parts[node].y[:0])

    def evaluate(self, weights: dict[str, np.ndarray]) -> dict[str, float]:
        model = self.model()
        model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        scores = evaluate(model, self._test, "cpu")
        return {name: scores[name] for name in ("accuracy", "loss")}


@lru_cache(maxsize=1)
def _digits(seed: int, width: int) -> Digits:
    return Digits(seed, width)


def task(settings: RunSettings) -> Digits:
    return _digits(settings.run.seed, 128)


def wide(settings: RunSettings) -> Digits:
    """Return the same with another network: a model of another layout."""
    return _digits(settings.run.seed, 96)


def initial(context: Context) -> Any:
    settings = RunSettings.from_config(context.run_config)
    return pkgutil.resolve_name(settings.deployment.task)(settings).initial()


def pause(point: str) -> None:
    """Wait here for as long as the test says so."""
    folder = Path(os.environ[MEET])
    hold, reached = folder / f"{point}.hold", folder / f"{point}.reached"
    if hold.exists():
        reached.write_text(str(os.getpid()))
        while hold.exists():
            time.sleep(0.02)


app = ClientApp(mods=[compress(initial=initial)])


@app.train()
def train(message: Message, context: Context) -> Message:
    ((_, record),) = message.content.array_records.items()
    before = {name: array.numpy() for name, array in record.items()}
    reply = ours.train(message, context)
    pause(f"train-{NodeConfig.read(context.node_config, context.node_id).name}")
    ((_, record),) = reply.content.array_records.items()
    known = context.state.array_records.get(WANTED)
    sums = {name: array.numpy() for name, array in known.items()} if known else {}
    for name, array in record.items():
        step = np.asarray(array.numpy() - before[name], np.float64)
        sums[name] = sums.get(name, 0) + step
    context.state[WANTED] = ArrayRecord({name: Array(array) for name, array in sums.items()})
    return reply


other = ClientApp(mods=[compress()])


@other.train()
def train_another_model(message: Message, context: Context) -> Message:
    """Reply with a model that is not the one that came."""
    reply = ours.train(message, context)
    ((_, record),) = reply.content.array_records.items()
    first = next(iter(record))
    record[first] = Array(record[first].numpy()[..., :-1].copy())
    return reply


server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    from fedpress.server import app as theirs  # a device has none of it
    from fedpress.server.strategy import round_loop

    aggregate = round_loop.aggregate

    def noted(strategy: Any, number: int, updates: Any, **rest: Any) -> Any:
        (Path(os.environ[MEET]) / "aggregate.round").write_text(str(number))
        pause("aggregate")
        outcome = aggregate(strategy, number, updates, **rest)
        if outcome is not None:
            rows = [
                {
                    "node": update.node,
                    "weight": update.weight,
                    "frame": base64.b64encode(update.encoded.frame).decode(),
                    "version": update.encoded.version.hex(),
                    "tensors": [tensor.name for tensor in update.encoded.part.tensors],
                }
                for update in outcome.updates
            ]
            with (Path(os.environ[MEET]) / "accepted.jsonl").open("a") as file:
                file.write(json.dumps({"round": number, "votes": rows}) + "\n")
        return outcome

    round_loop.aggregate = noted
    theirs.app(grid=grid, context=context)


def _overhear(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    global _asked, _known  # noqa: PLW0603
    content = RecordDict(dict(message.content))
    unfold(content)
    order = content.config_records.get(RECORD_NAME)
    if order is not None and "nonce" in order:
        _asked = (order["nonce"], order["round"], NodeConfig.read(context.node_config, context.node_id).name)
        _known = order["up"], Layout.of(dict(initial(context))), order["version"]
    return call_next(message, context)


def _owned(spoil: Callable[[Message], None]) -> ClientApp:
    """Return our app with a node's owner between it and the server, who changes its replies."""

    def mod(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        reply = call_next(message, context)
        if not reply.has_error():
            folded = unfold(reply.content)
            if "tensors" in reply.content[RECORD_NAME]:
                spoil(reply)
            if folded:
                fold(reply.content)
        return reply

    made = ClientApp(mods=[_overhear, mod, compress(initial=initial)])
    made.train()(train)
    return made


_first: dict[str, Any] = {}


def _replay(reply: Message) -> None:
    """Answer every message with what the first was answered."""
    if not _first:
        _first.update(reply.content.items())
    for key, record in _first.items():
        reply.content[key] = record


def _frame_of(reply: Message) -> Array:
    (record,) = reply.content.array_records.values()
    (array,) = record.values()
    return array


def _put(reply: Message, data: bytes) -> None:
    ((key, record),) = reply.content.array_records.items()
    (name,) = record
    reply.content[key] = ArrayRecord({name: Array("uint8", (len(data),), FRAME_STYPE, data)})
    # Bound to the message as the real one was: whoever owns a device has all that it has.
    own = reply.content.config_records[RECORD_NAME]
    own["answer"] = answer_of(*_asked, data)


_asked: tuple[Any, ...] = ()
_known: tuple[str, Layout, bytes] = ("", Layout(()), b"")  # the update's codec, and the model that was trained


def _garbage(reply: Message) -> None:
    _put(reply, os.urandom(6000))


def _huge(reply: Message) -> None:
    _put(reply, os.urandom(30_000_000))


def _bomb(reply: Message) -> None:
    """A frame of a few kB, right in every other way, whose streams unfold to a gigabyte."""
    up, layout, version = _known
    part = layout.part(reply.content.config_records[RECORD_NAME]["tensors"])
    real = read_frame(_frame_of(reply).data, FrameHead(up, part.digest, version))
    press = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(
            19, write_content_size=False, format=zstandard.FORMAT_ZSTD1_MAGICLESS
        )
    ).compressobj()
    data = b"".join(press.compress(bytes(1 << 20)) for _ in range(1 << 10)) + press.flush()
    head = bytearray()
    put_head(head, np.zeros(30_000, np.uint8))
    stream = np.frombuffer(bytes(head) + data, np.uint8)
    _put(reply, write_frame(real.spec, real.layout, real.base, dict.fromkeys(real.streams, stream)))


replaying, garbage, huge, bomb = (_owned(spoil) for spoil in (_replay, _garbage, _huge, _bomb))
