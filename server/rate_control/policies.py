"""Policies of rate: which codec each node is to use in each round."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from fedpress.common.settings import require
from fedpress.compression import Codec, parse
from fedpress.settings.server import PolicySettings


@dataclass(frozen=True)
class RateContext:
    """What is known of a node when its codec is picked."""

    node: str  # its name
    round: int
    asked: int  # nodes that are asked in this round, this one included
    exact: int = 0  # bytes of the model's tensors that no codec approximates: a frame takes about as many in any case


LEAST = 256  # bytes of a frame whose values all become zero, and more


class Policy(ABC):
    """Picks codecs. All that one policy picks must keep the same memory on a node, or what they keep would be lost."""

    @abstractmethod
    def codec(self, known: RateContext) -> Codec:
        """Return the codec of the node's next update."""


@dataclass(frozen=True)
class Fixed(Policy):
    """The same codec for everyone, always."""

    up: str

    def codec(self, known: RateContext) -> Codec:
        return parse(self.up)


@dataclass(frozen=True)
class Budget(Policy):
    """So many bytes of updates a round, shared alike; more only where what travels exactly takes more."""

    up: str  # its quantiser is told how many bytes
    nbytes: int  # of all updates of a round together

    def __post_init__(self) -> None:
        require(self.nbytes >= 1, "nbytes", "at least 1", self.nbytes)
        parse(self.up).aimed(bytes=1)

    def codec(self, known: RateContext) -> Codec:
        return parse(self.up).aimed(bytes=_possible(self.nbytes // known.asked, known))


def _possible(nbytes: int, known: RateContext) -> int:
    """Return `nbytes`, or what a frame takes in any case where that is more: a target below it fails every reply."""
    return max(1, nbytes, known.exact + LEAST if known.exact else 0)


def build_policy(settings: PolicySettings, up: str) -> Policy:
    """Return the policy that `settings` name, for updates that are coded by `up`.

    Raises
    ------
    SettingError
        If `up` takes no target.
    """
    return Fixed(up) if settings.name == "fixed" else Budget(up, settings.nbytes)


def describe(policy: Policy) -> str:
    """Return a policy as text that is the same in the process that goes on with a run."""
    plain = type(policy).__repr__ is object.__repr__
    return f"{type(policy).__module__}.{type(policy).__qualname__}" if plain else repr(policy)
