"""flwr's strategies by name, with their arguments."""

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy

from fedpress.common.errors import SettingError, unknown
from fedpress.common.logs import quiet_flower
from fedpress.common.settings import Value, convert, key_of, read
from fedpress.server.settings import Serving

PREFIX = "strategy."  # of the keys that hold a strategy's arguments
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


def build_strategy(config: Mapping[str, Value]) -> Strategy:
    """Return the strategy that a run's configuration names, `per-round` nodes to a round.

    Raises
    ------
    SettingError
        If there is none of this name, or it takes no such argument, or not with this value.
    """
    serving = read(Serving, config)
    if serving.strategy in {made.__name__ for made in _TREES}:
        raise SettingError(f"strategy {serving.strategy!r} has no tensors to compress: {', '.join(names())} have")
    if serving.strategy not in names():
        raise SettingError(unknown("strategy", serving.strategy, names()))
    make: type[FedAvg] = getattr(flower, serving.strategy)
    given = {key.removeprefix(PREFIX): value for key, value in config.items() if key.startswith(PREFIX)}
    own = arguments_of(serving.strategy)
    arguments: dict[str, Any] = {}
    for key, value in given.items():
        if key not in own:
            takes = ", ".join(PREFIX + name for name in own) or "no arguments"
            raise SettingError(f"{serving.strategy} takes {takes}, got {PREFIX}{key}")
        arguments[key.replace("-", "_")] = convert(PREFIX + key, value, own[key][0])
    lacking = [PREFIX + key for key, (_, default) in own.items() if default is None and key not in given]
    if lacking:
        raise SettingError(f"{serving.strategy} needs {', '.join(lacking)}")
    evaluating = round(serving.fraction_evaluate * int(config["clients"]))
    try:
        with quiet_flower():  # it warns that nodes do not evaluate, which the settings ask for
            return make(
                # The number of nodes is exact where a fraction would be rounded; the fraction only must not be 0.
                fraction_train=1e-9,
                fraction_evaluate=serving.fraction_evaluate,
                min_train_nodes=serving.per_round,
                min_evaluate_nodes=evaluating,
                min_available_nodes=max(serving.per_round, evaluating),
                **arguments,
            )
    except ValueError as error:  # flwr's own checks of its arguments
        raise SettingError(f"{serving.strategy}: {error}") from error
