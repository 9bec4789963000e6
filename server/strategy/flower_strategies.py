"""flwr's strategies by name, with their arguments."""

import inspect
from typing import Any, get_type_hints

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy

from fedpress.common.errors import SettingError, unknown
from fedpress.common.logs import quiet_flower
from fedpress.common.settings import Value, convert, key_of
from fedpress.server.aggregation.consistency import innermost
from fedpress.server.checkpointing.object_state import NODE_COUNTS
from fedpress.settings import RunSettings
from fedpress.settings.server import StrategySettings

PREFIX = "strategy."  # section of a strategy's arguments
# Arguments that follow from the run's own settings.
_OURS = set(inspect.signature(FedAvg).parameters)
# Strategies whose models are trees: the layout changes with every round.
_TREES = (flower.FedXgbBagging, flower.FedXgbCyclic)


def has_trees(strategy: Strategy) -> bool:
    """Return whether the models of `strategy` are trees."""
    return isinstance(strategy, _TREES)


def check_strategy(strategy: object) -> None:
    """Raise SettingError if `strategy` is not an instance of one of Flower's present strategies."""
    if isinstance(strategy, Strategy):
        return
    kind = strategy if isinstance(strategy, type) else type(strategy)
    if issubclass(kind, Strategy):
        raise SettingError(f"strategy must be an instance, got the class: write {kind.__name__}(...)")
    name = kind.__name__ if kind.__name__ in flower.__all__ else "FedAvg"
    raise SettingError(
        f"strategy must be one of flwr.serverapp.strategy, got {kind.__module__}.{kind.__qualname__}: write "
        f"`from flwr.serverapp.strategy import {name}`"
    )


def nodes_needed(strategy: Strategy) -> int:
    """Return the number of nodes for which Flower's `strategy` waits before a round; 0 if it names none."""
    inner = innermost(strategy)
    return max(int(getattr(inner, name, 0)) for name in NODE_COUNTS)


def names() -> list[str]:
    """Return the names of all strategies that can be compressed."""
    classes = {name: getattr(flower, name) for name in flower.__all__}
    return [
        name
        for name, made in classes.items()
        if isinstance(made, type) and issubclass(made, FedAvg) and not issubclass(made, _TREES)
    ]


def arguments_of(name: str) -> dict[str, tuple[type, Value | None]]:
    """Return a strategy's own arguments that settings can hold: each one's type and default, None if required."""
    make = getattr(flower, name)
    hints = get_type_hints(make.__init__)
    return {
        key_of(argument): (hints[argument], None if parameter.default is parameter.empty else parameter.default)
        for argument, parameter in inspect.signature(make).parameters.items()
        if argument not in _OURS and hints[argument] in (int, float, bool, str)
    }


def strategy_arguments(settings: StrategySettings) -> dict[str, Any]:
    """Return the arguments of the strategy that `settings` name, converted.

    Raises
    ------
    SettingError
        If the strategy or an argument is unknown, or a required argument is missing.
    """
    name, given = settings.name, dict(settings.arguments)
    if name in {made.__name__ for made in _TREES}:
        raise SettingError(f"strategy must be one of {', '.join(names())}, whose models are tensors, got {name!r}")
    if name not in names():
        raise SettingError(unknown("strategy", name, names()))
    own = arguments_of(name)
    for key in given:
        if key not in own:
            takes = ", ".join(PREFIX + known for known in own) or "no arguments"
            raise SettingError(f"{name} takes {takes}, got {PREFIX}{key}")
    lacking = [PREFIX + key for key, (_, default) in own.items() if default is None and key not in given]
    if lacking:
        raise SettingError(f"{name} needs {', '.join(lacking)}")
    return {key.replace("-", "_"): convert(PREFIX + key, value, own[key][0]) for key, value in given.items()}


def build_strategy(settings: RunSettings) -> Strategy:
    """Return the Flower strategy of a run, with `per-round` nodes in each round.

    Raises
    ------
    SettingError
        If the strategy or an argument is unknown, or a value is out of range.
    """
    server = settings.server
    arguments = strategy_arguments(settings.strategy)
    make: type[FedAvg] = getattr(flower, settings.strategy.name)
    evaluating = round(server.fraction_evaluate * settings.clients)
    try:
        with quiet_flower():  # without its warning that nodes do not evaluate: that is a setting
            return make(
                # min_train_nodes is exact, a fraction would be rounded; the fraction must only be above 0.
                fraction_train=1e-9,
                fraction_evaluate=server.fraction_evaluate,
                min_train_nodes=server.per_round,
                min_evaluate_nodes=evaluating,
                min_available_nodes=max(server.per_round, evaluating),
                **arguments,
            )
    except ValueError as error:  # flwr's own checks of its arguments
        raise SettingError(f"{settings.strategy.name}: {error}") from error
