"""digits: the server."""

import torch
from fedpress.server import Compressed
from fedpress.simulations.compare import comparable
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits.task import load_data, make_net, test

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context):
    strategy = FedAvg(fraction_train=context.run_config["fraction-train"], fraction_evaluate=0.0)
    strategy = Compressed(strategy)
    strategy = comparable(strategy, context)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(make_net().state_dict()),
        num_rounds=context.run_config["num-server-rounds"],
        evaluate_fn=evaluate,
    )
    up, down = strategy.ledger.totals(direction="up"), strategy.ledger.totals(direction="down")
    print(f"bytes up: {up.frame}, {up.ratio:.1f} times fewer; down: {down.frame}, {down.ratio:.1f} times fewer")
    print("accuracy:", result.evaluate_metrics_serverapp)
    torch.save(result.arrays.to_torch_state_dict(), context.run_config["save-to"])


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    net = make_net()
    net.load_state_dict(arrays.to_torch_state_dict())
    _, _, x, y = load_data(0, 1)
    return MetricRecord({"accuracy": test(net, x, y)})
