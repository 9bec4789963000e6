"""The Flower server of `bench edge`: a ServerApp with Flower's strategy, for nodes that return the model unchanged."""

from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedpress.settings import RunSettings
from fedpress.simulations.bench.edge_device import nothing, tick

HERE = "fedpress.simulations.bench.edge_server"

app = ServerApp()


@app.main()
def _main(grid: Grid, context: Context) -> None:
    server = RunSettings.from_config(context.run_config).server
    nodes = server.per_round
    strategy = FedAvg(fraction_train=1e-9, fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    initial = ArrayRecord({name: Array(array) for name, array in nothing(None).initial().items()})

    def clock(_: int, __: ArrayRecord) -> None:
        tick()

    strategy.start(grid, initial, num_rounds=server.rounds, evaluate_fn=clock)
