"""How the server runs a federation: rounds, codecs, strategy and rate policy."""

from dataclasses import dataclass

from fedpress.common.errors import SettingError
from fedpress.common.settings import Arguments, Settings, free_arguments, option
from fedpress.compression import parse_stateless
from fedpress.settings.codecs import AUTO, DELTAS, STEPS, down_codec, up_codec

POLICIES = ("fixed", "budget")


@dataclass(frozen=True)
class ServerSettings(Settings):
    """Rounds, and how models and updates are coded."""

    rounds: int = option(minimum=1, help="rounds of training")
    per_round: int = option(minimum=1, adjustable=True, help="clients that train in a round")
    up: str = option(AUTO, help="codec of the clients' updates; auto: unbiased, with measured noise")
    down: str = option(AUTO, help="codec of the model's deltas or steps; auto: low rank, for steps unbiased noise")
    key: str = option(
        "uniform(8) | ans",
        help="codec of whole models, for clients without an earlier one; with steps, of the initial model",
    )
    broadcast: str = option(
        DELTAS,
        choices=(DELTAS, STEPS),
        help="what clients are sent: a delta each, or the rounds' steps, which the server takes too",
    )
    shared_initial: bool = option(True, help="clients compute the initial model themselves from the seed")
    stateless: bool = option(False, help="clients keep no state between rounds")
    exclude: tuple[str, ...] = option((), help="patterns of names of tensors whose changes are not sent")
    max_norm: float = option(
        0.0, minimum=0, adjustable=True, help="an update of a larger L2 norm is scaled down to it; 0 for no bound"
    )
    norm_multiple: float = option(
        3.0,
        minimum=0,
        adjustable=True,
        help="an update is scaled down to this multiple of the usual L2 norm; 0 for no bound",
    )
    weight_multiple: float = option(
        3.0,
        minimum=0,
        adjustable=True,
        help="a reply weighs at most this multiple of the round's median; 0 for no bound",
    )
    stored_bytes: int = option(
        1 << 34,
        minimum=0,
        adjustable=True,
        help="bytes of clients' models that the server stores; a client without one gets a key frame",
    )
    fraction_evaluate: float = option(
        0.0, minimum=0, maximum=1, help="share of the clients that evaluate the model after each round"
    )
    min_replies: int = option(1, minimum=1, adjustable=True, help="a round with fewer accepted replies is repeated")
    timeout: float = option(3600.0, above=0, adjustable=True, help="seconds to wait for a round's replies")
    over_selection: float = option(
        1.0,
        minimum=1,
        maximum=10,
        adjustable=True,
        help="clients that are asked for each of per-round; 1.3 with real devices",
    )
    close_at: float = option(
        1.0,
        above=0,
        maximum=1,
        adjustable=True,
        help="share of the replies after which a round waits as long again, at least 10 s; 0.8 with real devices",
    )

    def check(self) -> None:
        if self.min_replies > self.per_round:
            raise SettingError(f"min-replies must be at most per-round, {self.per_round}, got {self.min_replies}")
        for name in ("norm_multiple", "weight_multiple"):
            if 0 < (multiple := getattr(self, name)) < 1:
                raise SettingError(f"{name.replace('_', '-')} must be 0 or at least 1, got {multiple:g}")

    def check_codecs(self) -> None:
        """Raise SettingError unless the codecs work; import those that they name, as the user of this process says."""
        up_codec(self.up)
        down_codec(self.down)
        parse_stateless(self.key)


@dataclass(frozen=True)
class StrategySettings(Settings):
    """The strategy that aggregates, and its arguments."""

    name: str = option("FedAvg", flag="strategy", help="one of Flower's or of an installed package, or module:object")
    arguments: Arguments = free_arguments("the strategy's arguments, by their names")


@dataclass(frozen=True)
class PolicySettings(Settings):
    """The rate policy, which selects each client's codec in each round."""

    name: str = option(
        "fixed", choices=POLICIES, help="fixed: always the codec up; budget: a codec that keeps to nbytes"
    )
    nbytes: int = option(0, minimum=0, help="total bytes of a round's updates, with the policy budget")

    def check(self) -> None:
        if self.name == "budget" and not self.nbytes:
            raise SettingError("nbytes must be at least 1 with the policy budget, got 0")
        if self.name != "budget" and self.nbytes:
            raise SettingError(f"nbytes must be 0 with the policy {self.name}, got {self.nbytes}")
