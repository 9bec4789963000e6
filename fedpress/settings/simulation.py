"""The settings of a simulation: the workload, its data on virtual clients, and the engine."""

from dataclasses import dataclass

from fedpress.common.settings import Settings, option

PARTITIONS = ("iid", "dirichlet", "shards", "natural")
ENGINES = ("inprocess", "ray")


@dataclass(frozen=True)
class SimulationSettings(Settings):
    """A workload's data, distributed over virtual clients, and the engine that runs them."""

    clients: int = option(minimum=1, help="number of virtual clients")
    workload: str = option("digits", help="data and models: a name, or module:object")
    model: str = option("", help="one of the workload's models, or module:object; its first model if not given")
    apps: str = option("", help="module with a server_app and a client_app, which replace those of fedpress")
    start: str = option("", path="", help="folder of the model to start from; fresh weights if not given")
    partition: str = option("iid", choices=PARTITIONS, help="how the data is distributed")
    alpha: float = option(0.5, above=0, help="Dirichlet's alpha: the smaller, the more clients differ")
    shards_per_client: int = option(2, minimum=1, help="shards of each client, with the partition shards")
    holdout: float = option(0.0, minimum=0, below=1, help="share of its examples that a client keeps for evaluation")
    dropout: float = option(0.0, minimum=0, below=1, help="dropout rate of models that have dropout layers")
    data: str = option("", path="", changes_result=False, help="folder of the workload's files")
    fetch: bool = option(False, changes_result=False, help="download the workload's data if it is missing")
    engine: str = option("inprocess", choices=ENGINES, help="engine that runs the apps: inprocess or ray")
    workers: int = option(0, minimum=0, changes_result=False, help="worker processes; 0 for one per core")
