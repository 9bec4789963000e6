"""The settings of a Flower app's run in a comparison, and the part of them that is in the app's run config."""

from dataclasses import dataclass

from fedpress.common.settings import Arguments, Settings, free_arguments, option

PREFIX = "compare."  # of the keys of `ComparedRun` in the app's run config


@dataclass(frozen=True)
class AppSettings(Settings):
    """The settings of one run of an app: those of the comparison, and the app's."""

    app: str = option(help="folder of the app")
    code: str = option(help="hash of the app's modules: cached runs are invalid when they change")
    up: str = option("", help="codec of updates")
    down: str = option("", help="codec of models")
    seed: int = option(0, minimum=0, help="seed of the run")
    clients: int = option(10, minimum=1, help="number of nodes")
    workers: int = option(1, minimum=0, help="worker processes")
    config: Arguments = free_arguments(help="the app's configuration")


@dataclass(frozen=True)
class ComparedRun(Settings):
    """The part of a run's settings that its ServerApp needs."""

    folder: str = option(help="folder of the run")
    up: str = option(help="codec of updates")
    down: str = option(help="codec of models")
    seed: int = option(help="seed of the run")
    clients: int = option(help="number of nodes")
