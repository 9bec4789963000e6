"""Our ServerApp: runs the federation that the run's configuration describes and keeps its folder."""

import pkgutil
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from fedpress.common.logs import limit_logs
from fedpress.common.task import Task
from fedpress.flower.grid import ClosedGrid, EngineGrid
from fedpress.protocol.arrays import model_record
from fedpress.server.run.recorder import RECORDER, Recorder
from fedpress.server.strategy.factory import build
from fedpress.settings import RunSettings

_SPARE = 1 << 20  # bytes of a reply in addition to the model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run it."""
    settings = RunSettings.from_config(context.run_config)
    folder = Path(settings.run.out)
    limit_logs(settings.run.log_bytes, settings.run.log_files)
    task: Task = pkgutil.resolve_name(settings.deployment.task)(settings)
    strategy, initial = build(settings, task, folder), task.initial()
    if settings.deployed:
        from fedpress.flower.polling_grid import PollingGrid

        # Twice the model in float32 is more than any frame of it takes.
        largest = _SPARE + 2 * sum(4 * array.size for array in strategy.extensions.begin(initial).values())
        names, signals = settings.deployment.node_names, settings.deployment.signals
        grid = PollingGrid(
            grid,  # type: ignore[arg-type]
            Path(names) if names else None,
            largest,
            Path(signals) if signals else None,
            close_at=settings.server.close_at,
        )
    elif not isinstance(grid, EngineGrid):
        grid = ClosedGrid(grid, settings.clients)
    recorder = Recorder(folder, settings, strategy.ledger)
    strategy.observe(recorder)
    strategy.parts[RECORDER] = recorder

    def evaluate(_: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord(dict(task.evaluate({name: array.numpy() for name, array in arrays.items()})))

    result = strategy.start(
        grid,
        model_record(initial),
        num_rounds=settings.server.rounds,
        timeout=settings.server.timeout,
        evaluate_fn=evaluate,
    )
    recorder.finish(strategy.final_facts, {name: array.numpy() for name, array in result.arrays.items()})
