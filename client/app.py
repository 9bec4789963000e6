"""Our ClientApp: trains the run's task on this node's data. Any other app may take its place."""

import pkgutil
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedpress.client.mod import compress
from fedpress.client.settings import Training
from fedpress.client.training import evaluate as evaluate_model
from fedpress.client.training import train as train_model
from fedpress.compression.settings import read


def _initial(context: Context) -> dict[str, Any]:
    """Return the model that the run begins with: the seed tells it."""
    model: dict[str, Any] = _task(context).initial()
    return model


app = ClientApp(mods=[compress(initial=_initial)])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model of the message on this node's examples; reply with what it became."""
    config = context.run_config
    task, partition, device = _task(context), int(context.node_config["partition-id"]), str(config["device"])
    model, key = _load(message, task, device)
    settings = _settings(message)
    training = read(Training, config)
    if "proximal-mu" in settings:  # the FedProx strategy says how strong the pull is
        training = replace(training, proximal_mu=float(settings["proximal-mu"]))  # type: ignore[arg-type]
    metrics = train_model(
        model,
        task.examples(partition),
        training,
        round=int(settings["server-round"]),  # type: ignore[arg-type]
        rounds=int(config["rounds"]),
        seed=int(config["seed"]),
        partition=partition,
        device=device,
    )
    content = RecordDict({key: ArrayRecord(model.state_dict()), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the model of the message on the examples that this node holds out."""
    task, device = _task(context), str(context.run_config["device"])
    model, _ = _load(message, task, device)
    metrics = evaluate_model(model, task.holdout(int(context.node_config["partition-id"])), device)
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def _task(context: Context) -> Any:
    return pkgutil.resolve_name(str(context.run_config["task"]))(context.run_config)


def _load(message: Message, task: Any, device: str) -> tuple[torch.nn.Module, str]:
    """Return the process's model with the message's weights in it, and the name of their record."""
    ((key, record),) = message.content.array_records.items()
    model = _model(task, device)
    model.load_state_dict({name: torch.from_numpy(array.numpy()) for name, array in record.items()})
    return model, key


@lru_cache(maxsize=1)
def _model(task: Any, device: str) -> torch.nn.Module:
    """Return a model that all nodes trained by this process take turns with: its weights are loaded anew each time."""
    model: torch.nn.Module = task.model().to(device)
    return model


def _settings(message: Message) -> ConfigRecord:
    (record,) = message.content.config_records.values()
    return record
