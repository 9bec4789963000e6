"""Any Flower app continues from its checkpoint in process, with and without the states of its nodes."""

import logging
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedpress.client import compress
from fedpress.protocol.arrays import arrays_of, model_record
from fedpress.server import Compressed
from fedpress.simulations import simulate

CODECS = {"up": "ef | lowrank(nmse=0.1) | ans", "down": "lowrank(nmse=0.3) | ans"}

client = ClientApp(mods=[compress()])


@client.train()
def train(message: Message, context: Context) -> Message:
    (record,) = message.content.array_records.values()
    model = {name: array + np.float32(0.1) for name, array in arrays_of(record).items()}
    content = {"arrays": model_record(model), "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(content), reply_to=message)


def run(folder: Path, rounds: int, *, resume: bool, states: Path | None) -> ArrayRecord:
    server, ended = ServerApp(), []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = Compressed(FedAvg(fraction_evaluate=0.0), **CODECS, checkpoint=str(folder), resume=resume)
        initial = model_record({"w": np.zeros((8, 6), np.float32)})
        ended.append(strategy.start(grid, initial, num_rounds=rounds).arrays)

    simulate(server, client, num_clients=2, workers=1, states=states)
    return ended[0]


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_continues_with_and_without_the_states_of_its_nodes(kept: bool, tmp_path: Path, caplog) -> None:
    states = tmp_path / "states" if kept else None
    run(tmp_path / "checkpoint", 2, resume=False, states=states)
    with caplog.at_level(logging.WARNING, "fedpress"):
        result = run(tmp_path / "checkpoint", 4, resume=True, states=states)
    assert np.allclose(result["w"].numpy(), 0.4, atol=0.05)
    warned = [record for record in caplog.records if record.name == "fedpress" and record.levelno >= logging.WARNING]
    assert len(warned) == (0 if kept else 1)
