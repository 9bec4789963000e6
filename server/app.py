"""Our ServerApp: runs the federation that the run's configuration describes and keeps its folder."""

import pkgutil
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from fedpress.compression.settings import read
from fedpress.server.aggregate import model_record
from fedpress.server.build import build
from fedpress.server.record import CHECKPOINT, Recorder
from fedpress.server.settings import Serving

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run it."""
    config = context.run_config
    serving = read(Serving, config)
    folder = Path(str(config["out"]))
    task = pkgutil.resolve_name(str(config["task"]))(config)
    strategy = build(config, task, folder / CHECKPOINT)
    strategy.on_round = Recorder(folder, config, strategy.ledger)

    def evaluate(_: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord(task.evaluate({name: array.numpy() for name, array in arrays.items()}))

    strategy.start(
        grid,
        model_record(task.initial()),
        num_rounds=serving.rounds,
        timeout=serving.timeout,
        evaluate_fn=evaluate,
    )
