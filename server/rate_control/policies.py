"""Rate policies: the codec of each node in each round."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from fedpress.common.settings import require
from fedpress.compression import Codec, parse, parse_trusted
from fedpress.settings.server import PolicySettings


@dataclass(frozen=True)
class RateContext:
    """A node whose codec is to be chosen.

    Examples
    --------
    >>> RateContext(node="a", round=1, requests=4).exact
    0
    """

    node: str  # its name
    round: int  # number of the round
    requests: int  # number of nodes of this round
    exact: int = 0  # bytes of the model's tensors that codecs may not approximate: a frame has at least about as many


LEAST = 256  # bytes, more than a frame whose values all become zero


class Policy(ABC):
    """Chooses codecs; all codecs of a policy must have the same state on a node, so that none of it is lost.

    Examples
    --------
    >>> class FirstRoundsExact(Policy):
    ...     def codec(self, context: RateContext) -> Codec:
    ...         return parse("none" if context.round < 3 else "fp16")
    >>> str(FirstRoundsExact().codec(RateContext(node="a", round=1, requests=4)))
    'none'
    """

    @abstractmethod
    def codec(self, context: RateContext) -> Codec:
        """Return the codec of the node's next update.

        Parameters
        ----------
        context : RateContext
            The node.

        Returns
        -------
        Codec
            The codec.
        """


@dataclass(frozen=True)
class Fixed(Policy):
    """The same codec for all nodes and rounds.

    Examples
    --------
    >>> str(Fixed("fp16").codec(RateContext(node="a", round=1, requests=4)))
    'fp16'
    """

    up: str  # spec of the codec

    def codec(self, context: RateContext) -> Codec:
        return parse(self.up)


@dataclass(frozen=True)
class Budget(Policy):
    """Equal shares of a number of bytes for the updates of a round; more if exact tensors alone need more.

    Examples
    --------
    >>> policy = Budget("ef | deadzone(nmse=0.1) | ans", nbytes=10_000)
    >>> str(policy.codec(RateContext(node="a", round=1, requests=4)))
    'ef | deadzone(bytes=2500) | ans'
    """

    up: str  # spec of a codec whose quantizer takes the target `bytes`
    nbytes: int  # of all updates of a round together

    def __post_init__(self) -> None:
        require(self.nbytes >= 1, "nbytes", "at least 1", self.nbytes)
        parse(self.up).aimed(bytes=1)

    def codec(self, context: RateContext) -> Codec:
        return parse(self.up).aimed(bytes=_achievable(self.nbytes // context.requests, context))


def _achievable(nbytes: int, context: RateContext) -> int:
    """Return `nbytes`, but at least the bytes of the smallest frame: no reply could meet a lower target."""
    return max(1, nbytes, context.exact + LEAST if context.exact else 0)


def build_policy(settings: PolicySettings, up: str) -> Policy:
    """Return the policy that settings describe.

    Parameters
    ----------
    settings : PolicySettings
        Name and arguments of the policy.
    up : str
        Spec of the codec of updates.

    Returns
    -------
    Policy
        The policy.

    Raises
    ------
    SettingError
        If `up` takes no target, and the policy sets one.

    Examples
    --------
    >>> build_policy(PolicySettings(), "fp16")
    Fixed(up='fp16')
    """
    codec = str(parse_trusted(up))
    return Fixed(codec) if settings.name == "fixed" else Budget(codec, settings.nbytes)


def describe(policy: Policy) -> str:
    """Return a policy as text that is the same in the process that resumes a run.

    Parameters
    ----------
    policy : Policy
        The policy.

    Returns
    -------
    str
        Its representation, or the name of its class.

    Examples
    --------
    >>> describe(Fixed("fp16"))
    "Fixed(up='fp16')"
    """
    plain = type(policy).__repr__ is object.__repr__
    return f"{type(policy).__module__}.{type(policy).__qualname__}" if plain else repr(policy)
