"""The ClientApp of fedpress: trains the run's task on this node's data. Any other ClientApp can replace it."""

import pkgutil
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedpress.client.mod import compress
from fedpress.client.training.loop import count_classes
from fedpress.client.training.loop import evaluate as evaluate_model
from fedpress.client.training.loop import train as train_model
from fedpress.common.errors import DataError, SettingError
from fedpress.common.task import ExamplesLike, Task
from fedpress.protocol.app_config import CLASS_COUNTS, AppConfig
from fedpress.settings import RunSettings
from fedpress.settings.extension import NodeModel
from fedpress.settings.node import NodeConfig


def _initial(context: Context) -> dict[str, Any]:
    """Return the initial model of the run, which derives from the seed."""
    task, own = _task(context), _settings(context).node_model(_node(context))
    if own is None:
        return task.initial()
    model = _new_model(task, replace(own, scale=0.0))  # the scale of inputs is not part of the weights
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


app = ClientApp(mods=[compress(initial=_initial)])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model of the message on this node's examples; reply with the trained model."""
    settings, task = _settings(context), _task(context)
    model, key = _load(message, context, task)
    examples, _ = _examples(context, task, model)
    request = _request(message)
    training = settings.training
    if request.proximal_mu is not None:
        training = replace(training, proximal_mu=float(request.proximal_mu))
    metrics = train_model(
        model,
        examples,
        training,
        round=request.server_round,
        rounds=settings.server.rounds,
        seed=settings.run.seed,
        partition=_node(context).number,
        device=settings.run.device,
        prunes=settings.prunes,
    )
    if settings.needs_class_counts:
        metrics[CLASS_COUNTS] = count_classes(model, examples, settings.run.device)
    content = RecordDict({key: ArrayRecord(model.state_dict()), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the model of the message on the examples that this node holds out."""
    task, device = _task(context), _settings(context).run.device
    model, _ = _load(message, context, task)
    examples, holdout = _examples(context, task, model)
    metrics = evaluate_model(model, holdout, device)
    request = _request(message)
    if request.finetune_epochs:
        before = {f"before-{name}": metrics[name] for name in ("accuracy", "loss")}
        _finetune(model, examples, request, context)
        metrics = {**before, **evaluate_model(model, holdout, device)}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def _finetune(model: torch.nn.Module, examples: ExamplesLike, request: AppConfig, context: Context) -> None:
    """Train `model` in place, at a constant learning rate and without a proximal term."""
    settings, number = _settings(context), request.server_round
    training = settings.training
    train_model(
        model,
        examples,
        replace(
            training,
            local_epochs=request.finetune_epochs,
            local_steps=0,
            lr=request.finetune_lr or training.lr,
            schedule="constant",
            warmup_rounds=0,
            proximal_mu=0.0,
        ),
        round=number,
        rounds=number,
        seed=settings.run.seed,
        partition=_node(context).number,
        device=settings.run.device,
        prunes=settings.prunes,
    )


def _node(context: Context) -> NodeConfig:
    return NodeConfig.read(context.node_config, context.node_id)


def _examples(context: Context, task: Task, model: torch.nn.Module) -> tuple[ExamplesLike, ExamplesLike]:
    """Return the node's training and held-out examples: from the device if it has data, otherwise from the task."""
    node = _node(context)
    if node.data:
        return _local_examples(node.data, _settings(context), node.number, model)
    if node.partition is None:
        raise DataError("the node must have data or a partition-id: set data in client.toml")
    return task.examples(node.partition), task.holdout(node.partition)


def _local_examples(
    spec: str, settings: RunSettings, partition: int, model: torch.nn.Module
) -> tuple[ExamplesLike, ExamplesLike]:
    from fedpress.client.data import read as read_data

    local = read_data(spec)
    local.fits(model, settings.run.device)
    return local.split(settings.simulation.holdout, settings.run.seed, partition)


def _settings(context: Context) -> RunSettings:
    if not context.run_config:
        raise SettingError("the run must have a configuration: the server passes all of it when it starts the run")
    return RunSettings.from_config(context.run_config)


def _task(context: Context) -> Task:
    settings = _settings(context)
    task: Task = pkgutil.resolve_name(settings.deployment.task)(settings)
    return task


def _load(message: Message, context: Context, task: Task) -> tuple[torch.nn.Module, str]:
    """Return the process's model with the message's weights, and the name of their record."""
    ((key, record),) = message.content.array_records.items()
    settings = _settings(context)
    model = _model(task, settings.node_model(_node(context)), settings.run.device)
    model.load_state_dict({name: torch.from_numpy(array.numpy()) for name, array in record.items()})
    return model, key


@lru_cache(maxsize=8)
def _model(task: Task, own: NodeModel | None, device: str) -> torch.nn.Module:
    """Return the model that all nodes in this process share; weights are loaded before each use."""
    return _new_model(task, own).to(device)


def _new_model(task: Task, own: NodeModel | None) -> torch.nn.Module:
    """Return a new model: the node's own, or the run's."""
    model = task.model(own.name) if own and own.name else task.model()
    if own is None or own.width == 1:
        return model
    from fedpress.compression.model.narrow import narrow

    return narrow(model, own.width, own.scale)


def _request(message: Message) -> AppConfig:
    (record,) = message.content.config_records.values()
    return AppConfig.from_record(record)
