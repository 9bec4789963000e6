"""The clients of `bench edge`: a node that returns the model unchanged, and one that trains the McMahan CNN.

The benchmark copies this file into its devices' import path, as a user's app: devices have no simulations package.
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

PLACE = "FEDPRESS_BENCH_EDGE"  # environment variable: the folder that devices, the server and the benchmark share
DATA = "data.npz"  # file of that folder with the training images
MODELS = "models.py"  # file of that folder that defines the network
FLOATS, TIMES = "floats", "times.json"  # files of that folder: number of zeros sent, end of each round

ours = ClientApp(mods=[compress()])
stock = ClientApp()


@ours.train()
@stock.train()
def _echo(message: Message, _: Context) -> Message:
    """Return the model unchanged."""
    ((key, record),) = message.content.array_records.items()
    content = RecordDict({key: record})
    content["metrics"] = MetricRecord({"num-examples": 1})
    return Message(content, reply_to=message)


def place() -> Path:
    """Return the folder that devices, the server and the benchmark share."""
    return Path(os.environ[PLACE])


class Images:
    """The task of the one node that trains."""

    def __init__(self) -> None:
        with np.load(place() / DATA) as data:
            self._examples = SimpleNamespace(x=torch.from_numpy(data["x"]), y=torch.from_numpy(data["y"]))
        self._make = runpy.run_path(str(place() / MODELS))["mcmahan"]

    def model(self) -> torch.nn.Module:
        """Return a new McMahan CNN, with the same weights each time."""
        torch.manual_seed(0)
        made: torch.nn.Module = self._make(0.0)
        return made

    def initial(self) -> dict[str, Any]:
        """Return its weights."""
        return {name: tensor.numpy() for name, tensor in self.model().state_dict().items()}

    def examples(self, _: int) -> Any:
        """Return the training examples."""
        return self._examples

    def holdout(self, _: int) -> Any:
        """Return no examples."""
        return SimpleNamespace(x=self._examples.x[:0], y=self._examples.y[:0])

    def evaluate(self, _: dict[str, Any]) -> dict[str, float]:
        """Return no scores: only training is measured."""
        return {}


class EchoTask:
    """The task of nodes that return the model, an array of zeros, unchanged."""

    def initial(self) -> dict[str, Any]:
        """Return the zeros."""
        return {"x": np.zeros(int((place() / FLOATS).read_text()), np.float32)}

    def evaluate(self, _: dict[str, Any]) -> dict[str, float]:
        """Record the end of a round."""
        tick()
        return {}


@lru_cache(maxsize=1)
def _made() -> Images:
    return Images()


def images(_: Any) -> Images:
    """Return the task, the same object each time in one process."""
    return _made()


def nothing(_: Any) -> EchoTask:
    """Return the task."""
    return EchoTask()


_times: list[float] = []


def tick() -> None:
    """Record the end of a round in the shared folder."""
    _times.append(time.time())
    part = place() / f"{TIMES}.part"
    part.write_text(json.dumps(_times))
    part.replace(place() / TIMES)
