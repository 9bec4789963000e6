"""flwr's strategies by name: each can be built, with the given number of nodes and arguments."""

import inspect

import pytest
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from fedpress.common.settings import Value, key_of
from fedpress.server.strategy.flower_strategies import PREFIX, build_strategy, names
from fedpress.simulations.settings import resolve

# What a strategy cannot do without.
NEEDED: dict[str, dict[str, Value]] = {"QFedAvg": {"strategy.client-learning-rate": 0.1}}


def test_every_strategy_of_tensors_is_offered() -> None:
    found = {
        name
        for name, made in vars(flower).items()
        if isinstance(made, type) and issubclass(made, FedAvg) and not name.startswith("FedXgb")
    }
    assert set(names()) == found


@pytest.mark.parametrize("name", names())
def test_a_strategy_trains_as_many_nodes_as_asked(name: str) -> None:
    config = resolve({"strategy": name, "clients": 50, "per-round": 7, **NEEDED.get(name, {})})
    strategy = build_strategy(config)
    assert type(strategy) is getattr(flower, name)
    assert isinstance(strategy, FedAvg)
    assert max(int(50 * strategy.fraction_train), strategy.min_train_nodes) == 7
    assert strategy.fraction_evaluate == 0


@pytest.mark.parametrize("name", names())
def test_arguments_given_at_their_defaults_change_nothing(name: str) -> None:
    signature = inspect.signature(getattr(flower, name)).parameters
    ours = set(inspect.signature(FedAvg).parameters)
    defaults = {
        PREFIX + key_of(argument): parameter.default
        for argument, parameter in signature.items()
        if argument not in ours and isinstance(parameter.default, int | float | str)
    }
    without = build_strategy(resolve({"strategy": name, **NEEDED.get(name, {})}))
    given = build_strategy(resolve({"strategy": name, **NEEDED.get(name, {}), **defaults}))
    assert state(given) == state(without)


@pytest.mark.parametrize(
    ("name", "argument", "value", "attribute"),
    [
        ("FedAvgM", "server-momentum", 0.9, "server_momentum"),
        ("FedAdam", "beta-2", 0.5, "beta_2"),
        ("FedProx", "proximal-mu", 0.25, "proximal_mu"),
        ("FedTrimmedAvg", "beta", 0.1, "beta"),
        ("MultiKrum", "num-nodes-to-select", 3, "num_nodes_to_select"),
        ("QFedAvg", "q", 1, "q"),
    ],
)
def test_an_argument_arrives(name: str, argument: str, value: Value, attribute: str) -> None:
    strategy = build_strategy(resolve({"strategy": name, **NEEDED.get(name, {}), PREFIX + argument: value}))
    assert getattr(strategy, attribute) == value


def test_nodes_evaluate_when_asked() -> None:
    strategy = build_strategy(resolve({"clients": 40, "fraction-evaluate": 0.5, "holdout": 0.1}))
    assert isinstance(strategy, FedAvg)
    assert (strategy.fraction_evaluate, strategy.min_evaluate_nodes) == (0.5, 20)


def state(strategy: object) -> dict[str, object]:
    """What a strategy holds, but for functions, which are made anew."""
    return {name: value for name, value in vars(strategy).items() if not callable(value)}
