"""The apps that the survival tests run: ours, which stop where a test wants them to and note what they did.

Processes find this module on their path, and in FEDPRESS_PROOF the folder in which they and the test meet:

    POINT.hold       made by the test: whoever comes to the point waits until it is gone
    POINT.reached    made by whoever waits there, with its process id
    accepted.jsonl   a line for each round that was aggregated, the last one of a round counts: its votes, in order
"""

import base64
import json
import os
import pkgutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from torch import nn

from fedpress.client import app as ours
from fedpress.client import compress
from fedpress.client.mod import node_name
from fedpress.server import app as theirs
from fedpress.server import compressed
from fedpress.simulations.workloads import task as workload

WANTED = "wanted"  # sums of all that training asked for, kept with the node's own state
MEET = "FEDPRESS_PROOF"
DEALT = 40  # nodes that the digits are dealt out to: 36 examples each


def task(config: Any) -> Any:
    """Return the task: digits, dealt out the same way however many nodes there are."""
    return workload({"workload": "digits", "partition": "iid", "clients": DEALT, "seed": int(config["seed"])})


def wide(config: Any) -> Any:
    """Return the same with a wider network: a model of another layout."""
    return replace(
        task(config), make=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))
    )


def initial(context: Context) -> Any:
    return pkgutil.resolve_name(str(context.run_config["task"]))(context.run_config).initial()


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
    pause(f"train-{node_name(context)}")
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
    aggregate = compressed.aggregate

    def noted(strategy: Any, number: int, votes: Any, *rest: Any) -> Any:
        pause("aggregate")
        outcome = aggregate(strategy, number, votes, *rest)
        if outcome is not None:
            rows = [
                {
                    "node": vote.node,
                    "weight": vote.weight,
                    "frame": base64.b64encode(vote.frame).decode(),
                    "version": vote.version.hex(),
                    "tensors": [tensor.name for tensor in vote.part.tensors],
                }
                for vote in outcome.votes
            ]
            with (Path(os.environ[MEET]) / "accepted.jsonl").open("a") as file:
                file.write(json.dumps({"round": number, "votes": rows}) + "\n")
        return outcome

    compressed.aggregate = noted
    theirs.app(grid=grid, context=context)
