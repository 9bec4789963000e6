"""flwr's strategies by name, with their arguments."""

import inspect
from typing import Any, get_type_hints

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy

from fedpress.common.errors import SettingError, unknown
from fedpress.common.logs import quiet_flower
from fedpress.common.settings import Value, convert, key_of
from fedpress.settings import RunSettings
from fedpress.settings.server import StrategySettings

PREFIX = "strategy."  # section of a strategy's arguments
# These follow from the run's own settings.
_OURS = set(inspect.signature(FedAvg).parameters)
# Their models are trees, which grow: they have no layout that stays.
_TREES = (flower.FedXgbBagging, flower.FedXgbCyclic)


def has_trees(strategy: Strategy) -> bool:
    """Return whether the models of `strategy` are trees."""
    return isinstance(strategy, _TREES)


def names() -> list[str]:
    """Return the strategies there are."""
    classes = {name: getattr(flower, name) for name in flower.__all__}
    return [
        name
        for name, made in classes.items()
        if isinstance(made, type) and issubclass(made, FedAvg) and not issubclass(made, _TREES)
    ]


def arguments_of(name: str) -> dict[str, tuple[type, Value | None]]:
    """Return a strategy's own arguments that a configuration can hold: type, and default or None if it has none."""
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
        If there is no such strategy, or it takes no such argument, or lacks one.
    """
    name, given = settings.name, dict(settings.arguments)
    if name in {made.__name__ for made in _TREES}:
        raise SettingError(f"strategy must have tensors to compress, got {name!r}: {', '.join(names())} have")
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
    """Return the strategy of a run, with `per-round` nodes to a round.

    Raises
    ------
    SettingError
        If there is no such strategy, or it takes no such argument, or not with this value.
    """
    server = settings.server
    arguments = strategy_arguments(settings.strategy)
    make: type[FedAvg] = getattr(flower, settings.strategy.name)
    evaluating = round(server.fraction_evaluate * settings.clients)
    try:
        with quiet_flower():  # it warns that nodes do not evaluate, which the settings ask for
            return make(
                # The number of nodes is exact where a fraction would be rounded; the fraction only must not be 0.
                fraction_train=1e-9,
                fraction_evaluate=server.fraction_evaluate,
                min_train_nodes=server.per_round,
                min_evaluate_nodes=evaluating,
                min_available_nodes=max(server.per_round, evaluating),
                **arguments,
            )
    except ValueError as error:  # flwr's own checks of its arguments
        raise SettingError(f"{settings.strategy.name}: {error}") from error
