"""The clients' side of `bench edge`: a node that returns what it got, and one that trains the McMahan CNN.

The bench copies this file to where its devices find it, as an app of the user's own: a device has no simulations.
"""

import json
import os
import runpy
import time
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedpress.client import compress

PLACE = "FEDPRESS_BENCH_EDGE"  # in the environment: the folder in which devices, server and bench meet
DATA = "data.npz"  # there, the images to train on
MODELS = "models.py"  # there, what the network is made by
FLOATS, TIMES = "floats", "times.json"  # there, how many zeros are sent, and when rounds ended

ours = ClientApp(mods=[compress()])
stock = ClientApp()


@ours.train()
@stock.train()
def _echo(message: Message, _: Context) -> Message:
    """Return what came."""
    ((key, record),) = message.content.array_records.items()
    content = RecordDict({key: record})
    content["metrics"] = MetricRecord({"num-examples": 1})
    return Message(content, reply_to=message)


def place() -> Path:
    """Return the folder in which they meet."""
    return Path(os.environ[PLACE])


class Images:
    """The task of the one node that trains."""

    def __init__(self) -> None:
        with np.load(place() / DATA) as data:
            self._examples = SimpleNamespace(x=torch.from_numpy(data["x"]), y=torch.from_numpy(data["y"]))
        self._make = runpy.run_path(str(place() / MODELS))["mcmahan"]

    def model(self) -> torch.nn.Module:
        """Return a fresh McMahan CNN, the same each time."""
        torch.manual_seed(0)
        made: torch.nn.Module = self._make(0.0)
        return made

    def initial(self) -> dict[str, Any]:
        """Return its weights."""
        return {name: tensor.numpy() for name, tensor in self.model().state_dict().items()}

    def examples(self, _: int) -> Any:
        """Return what it trains on."""
        return self._examples

    def holdout(self, _: int) -> Any:
        """Return nothing."""
        return SimpleNamespace(x=self._examples.x[:0], y=self._examples.y[:0])

    def evaluate(self, _: dict[str, Any]) -> dict[str, float]:
        """Return nothing: it is the training that is measured."""
        return {}


class EchoTask:
    """The task of nodes that return what they got: so many zeros."""

    def initial(self) -> dict[str, Any]:
        """Return the zeros."""
        return {"x": np.zeros(int((place() / FLOATS).read_text()), np.float32)}

    def evaluate(self, _: dict[str, Any]) -> dict[str, float]:
        """Note when a round ended."""
        tick()
        return {}


@lru_cache(maxsize=1)
def _made() -> Images:
    return Images()


def images(_: Any) -> Images:
    """Return the task, the same each time in one process."""
    return _made()


def nothing(_: Any) -> EchoTask:
    """Return the task."""
    return EchoTask()


_times: list[float] = []


def tick() -> None:
    """Write down that a round has ended."""
    _times.append(time.time())
    part = place() / f"{TIMES}.part"
    part.write_text(json.dumps(_times))
    part.replace(place() / TIMES)
