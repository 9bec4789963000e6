"""Our ServerApp: runs the federation that the run's configuration describes and keeps its folder."""

import math
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from fedpress.compression.settings import Value, read
from fedpress.server.aggregate import model_record
from fedpress.server.compressed import Compressed
from fedpress.server.distillation import Distilling, EnsembleDistillation
from fedpress.server.policies import build_policy
from fedpress.server.record import CHECKPOINT, Recorder
from fedpress.server.settings import Serving
from fedpress.server.strategies import build_strategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run it."""
    config = context.run_config
    serving = read(Serving, config)
    folder = Path(str(config["out"]))
    task = pkgutil.resolve_name(str(config["task"]))(config)
    strategy = Compressed(
        build_strategy(config),
        up=build_policy(config),
        down=serving.down,
        key=serving.key,
        seed=int(config["seed"]),
        shared_initial=serving.shared_initial,
        stateless=serving.stateless,
        exclude=tuple(filter(None, serving.exclude.split(","))),
        min_replies=serving.min_replies,
        max_norm=serving.max_norm or math.inf,
        checkpoint=folder / CHECKPOINT,
        resume=bool(config.get("resume")),
        distil=_teach(task, config),
    )
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


def _teach(task: Any, config: Mapping[str, Value]) -> EnsembleDistillation | None:
    settings = read(Distilling, config)
    if not settings.distil:
        return None
    device = str(config["device"])
    return EnsembleDistillation(task.model, task.proxy.x, task.guard.x, task.guard.y, settings, device)
