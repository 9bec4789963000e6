"""Strategies by name, with their arguments: Flower's, and those of other packages."""

import inspect
from collections.abc import Callable
from typing import Any, cast

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy

from fedpress.common.errors import FedpressError, SettingError
from fedpress.common.logs import quiet_flower
from fedpress.common.named import find_object
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
    """Return the names of Flower's strategies that can be compressed."""
    classes = {name: getattr(flower, name) for name in flower.__all__}
    return [
        name
        for name, made in classes.items()
        if isinstance(made, type) and issubclass(made, FedAvg) and not issubclass(made, _TREES)
    ]


def find_strategy(name: str) -> Callable[..., Any]:
    """Return what makes a strategy: a class, or a function.

    Parameters
    ----------
    name : str
        One of Flower's, one of an installed package, or `package.module:object`.

    Raises
    ------
    SettingError
        If there is no such strategy, or its models are trees.
    """
    if name in {made.__name__ for made in _TREES}:
        raise SettingError(f"strategy must be one of {', '.join(names())}, whose models are tensors, got {name!r}")
    found = find_object("strategy", name, {known: getattr(flower, known) for known in names()}, "strategies")
    if not callable(found):
        raise SettingError(f"strategy must be a class or a function that returns a strategy, got {name!r}")
    return cast("Callable[..., Any]", found)


def arguments_of(make: Callable[..., Any]) -> dict[str, tuple[type, Value | None]]:
    """Return a strategy's own arguments that settings can hold: each one's type and default, None if required."""
    return {
        key_of(name): (parameter.annotation, None if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(make, eval_str=True).parameters.items()
        if name not in _OURS and parameter.annotation in (int, float, bool, str)
    }


def strategy_arguments(settings: StrategySettings) -> dict[str, Any]:
    """Return the arguments of the strategy that `settings` name, converted.

    Raises
    ------
    SettingError
        If the strategy or an argument is unknown, or a required argument is missing.
    """
    name, given = settings.name, dict(settings.arguments)
    own = arguments_of(find_strategy(name))
    for key in given:
        if key not in own:
            takes = ", ".join(PREFIX + known for known in own) or "no arguments"
            raise SettingError(f"{name} takes {takes}, got {PREFIX}{key}")
    lacking = [PREFIX + key for key, (_, default) in own.items() if default is None and key not in given]
    if lacking:
        raise SettingError(f"{name} needs {', '.join(lacking)}")
    return {key.replace("-", "_"): convert(PREFIX + key, value, own[key][0]) for key, value in given.items()}


def build_strategy(settings: RunSettings) -> Strategy:
    """Return the strategy of a run, with `per-round` nodes in each round.

    Raises
    ------
    SettingError
        If the strategy or an argument is unknown, or a value is out of range.
    FedpressError
        If the code of a strategy of another package fails.
    """
    server, name = settings.server, settings.strategy.name
    arguments, make = strategy_arguments(settings.strategy), find_strategy(name)
    evaluating = round(server.fraction_evaluate * settings.clients)
    sampling = {
        # min_train_nodes is exact, a fraction would be rounded; the fraction must only be above 0.
        "fraction_train": 1e-9,
        "fraction_evaluate": server.fraction_evaluate,
        "min_train_nodes": server.per_round,
        "min_evaluate_nodes": evaluating,
        "min_available_nodes": max(server.per_round, evaluating),
    }
    parameters = inspect.signature(make).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        missing = sampling.keys() - parameters.keys()
        if missing:
            raise SettingError(
                f"strategy {name!r} must take the arguments of FedAvg and pass them on, as with **kwargs: it lacks "
                f"{', '.join(sorted(missing))}"
            )
    try:
        with quiet_flower():  # without its warning that nodes do not evaluate: that is a setting
            strategy = make(**sampling, **arguments)
    except ValueError as error:  # flwr's own checks of its arguments
        raise SettingError(f"strategy {name!r} cannot be made: {error}") from error
    except Exception as error:  # another package's class may raise anything
        raise FedpressError(f"strategy {name!r} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(strategy, Strategy) or has_trees(strategy):
        raise SettingError(
            f"strategy {name!r} must make a flwr.serverapp.strategy.Strategy whose models are tensors, got "
            f"{type(strategy).__module__}.{type(strategy).__qualname__}"
        )
    return strategy
