"""How the server runs a federation: settings, checked when they are read."""

from dataclasses import dataclass

from fedpress.common.errors import SettingError
from fedpress.common.settings import require
from fedpress.compression import parse
from fedpress.server.downlink.downlink import parse_down


@dataclass(frozen=True)
class Serving:
    """The server's side of a run."""

    rounds: int  # rounds of training
    per_round: int  # nodes that train in each
    strategy: str = "FedAvg"  # any of flwr's strategies; its arguments stand under strategy.NAME
    up: str = "ef | lowrank(nmse=0.1) | ans"  # codec of the updates
    down: str = "lowrank(nmse=0.3) | ans"  # codec of the model's deltas
    key: str = "uniform(8) | ans"  # codec of whole models, for nodes that have none
    shared_initial: bool = True  # nodes make the initial model themselves, from the seed
    stateless: bool = False  # nodes keep nothing between rounds
    exclude: str = ""  # patterns of names of tensors whose changes are not sent, between commas
    policy: str = "fixed"  # of rate: fixed or budget; its arguments stand under policy.NAME
    max_norm: float = 0.0  # an update of a larger L2 norm is refused; 0 for any
    max_examples: float = 1e9  # a reply that claims a larger weight is refused
    fraction_evaluate: float = 0.0  # share of the nodes that evaluate the model after each round
    min_replies: int = 1  # a round in which fewer replies count is repeated
    timeout: float = 3600.0  # seconds to wait for a round's replies

    def __post_init__(self) -> None:
        for name in ("rounds", "per_round", "min_replies"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(0 <= self.fraction_evaluate <= 1, "fraction_evaluate", "in [0, 1]", self.fraction_evaluate)
        require(self.timeout > 0, "timeout", "above 0", self.timeout)
        if self.min_replies > self.per_round:
            raise SettingError(f"min-replies is at most per-round, {self.per_round}, got {self.min_replies}")
        parse(self.up)
        parse_down(self.down)
        parse_down(self.key)
        require(self.max_norm >= 0, "max_norm", "at least 0", self.max_norm)
        require(self.max_examples > 0, "max_examples", "above 0", self.max_examples)
