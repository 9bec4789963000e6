"""Apps of the tests' own, small enough to start at once: what training asks for is known, and kept to be added up."""

import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedpress.client import compress
from fedpress.extensions.personal_layers.server import PersonalLayers
from fedpress.extensions.personal_layers.settings import PersonalLayersSettings
from fedpress.server import Compressed
from fedpress.server.aggregation.client_update import FederationLimits

UP = "ef | topk(0.1) | ans"
app = ClientApp(mods=[compress()])
server = ServerApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    ((key, record),) = message.content.array_records.items()
    number = message.content["config"]["server-round"]
    if pause := float(context.run_config.get("pause", 0)):
        Path(os.environ["EDGE_TEST_FOLDER"], f"training-{context.node_config['name']}-{number}").touch()
        time.sleep(pause)
    rng = np.random.default_rng([int(context.node_config["name"]), number])
    steps = {name: rng.normal(size=array.shape).astype(np.float32) for name, array in record.items()}
    wanted = context.state.get("wanted") or ArrayRecord()
    wanted[f"{len(wanted)}"] = Array(steps["w"])
    context.state["wanted"] = wanted
    if "head" in steps:
        context.state["wanted-head"] = ArrayRecord(
            {**(context.state.get("wanted-head") or {}), str(len(wanted)): Array(steps["head"])}
        )
    trained = ArrayRecord({name: Array(array.numpy() + steps[name]) for name, array in record.items()})
    return Message(RecordDict({key: trained, "m": MetricRecord({"num-examples": 1})}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    nodes, rounds = int(context.run_config["nodes"]), int(context.run_config["rounds"])
    while len(list(grid.get_node_ids())) < nodes:
        time.sleep(0.2)
    inner = FedAvg(fraction_evaluate=0.0, min_available_nodes=nodes, min_train_nodes=nodes)
    personal = [PersonalLayers(PersonalLayersSettings(tensors=("head",)))] if context.run_config.get("personal") else []
    limits = FederationLimits(min_replies=int(context.run_config.get("replies", nodes)))
    up = str(context.run_config.get("up", UP))
    strategy = Compressed(inner, up=up, down="none", limits=limits, extensions=personal)
    start = ArrayRecord({"w": Array(np.zeros(2000, np.float32))})
    if personal:
        start["head"] = Array(np.ones(7, np.float32))
    result = strategy.start(grid, start, num_rounds=rounds, train_config=ConfigRecord(), timeout=120)
    np.savez(str(context.run_config["out"]), w=result.arrays["w"].numpy())
