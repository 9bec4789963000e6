"""Our ServerApp: runs the federation that the run's configuration describes and keeps its folder."""

import pkgutil
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from fedpress.common.settings import read
from fedpress.protocol.arrays import model_record
from fedpress.server.run.recorder import Recorder
from fedpress.server.settings import Serving
from fedpress.server.strategy.factory import build

NODES = "nodes-file"  # who is who among enrolled nodes; empty if nobody is enrolled
BELLS = "bells"  # folder of the bells between the ServerApp and the gate; empty for none
_SPARE = 1 << 20  # bytes of a reply beside the model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run it."""
    config = context.run_config
    serving = read(Serving, config)
    folder = Path(str(config["out"]))
    task = pkgutil.resolve_name(str(config["task"]))(config)
    strategy, initial = build(config, task, folder), task.initial()
    if NODES in config:  # deployed
        from fedpress.flower.polling_grid import PollingGrid

        # Twice the model in float32 is more than any frame of it takes.
        largest = _SPARE + 2 * sum(4 * array.size for array in strategy.extensions.begin(initial).values())
        nodes, bells = (Path(str(config[key])) if config.get(key) else None for key in (NODES, BELLS))
        grid = PollingGrid(grid, nodes, largest, bells)  # type: ignore[arg-type]
    recorder = Recorder(folder, config, strategy.ledger)
    strategy.on_round = recorder

    def evaluate(_: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord(dict(task.evaluate({name: array.numpy() for name, array in arrays.items()})))

    strategy.start(
        grid,
        model_record(initial),
        num_rounds=serving.rounds,
        timeout=serving.timeout,
        evaluate_fn=evaluate,
    )
    recorder.finish(strategy.final_facts)
