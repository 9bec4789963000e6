"""Rate policies: the codec of each node in each round."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedpress.common.errors import SettingError
from fedpress.common.logs import LOGGER
from fedpress.common.settings import require
from fedpress.compression import Codec, parse, parse_trusted
from fedpress.compression.stages.transform.crosspolytope import LEAST_NOISE
from fedpress.server.aggregation.aggregate import UpdateEnergy
from fedpress.settings.codecs import AUTO, DELTAS, FIRST_NOISE, STEPS, auto_up
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


_log = logging.getLogger(LOGGER)

# Noise of the mean update over its signal, both squared norms. A delta takes more bytes the more noise it carries, a
# step does not.
TOLERATED = {DELTAS: 1.0, STEPS: 3.0}
MOST_NOISE = 64.0  # of one update: beyond it frames hardly become smaller
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

    def observe(self, energy: UpdateEnergy) -> None:  # noqa: B027  most policies need no measurements
        """Take note of a round's updates, to choose the codecs of the next one.

        Parameters
        ----------
        energy : UpdateEnergy
            The updates that counted.
        """

    def dump_state(self) -> Mapping[str, float]:
        """Return what checkpoints keep of earlier rounds.

        Returns
        -------
        mapping of str to float
            The state by name.
        """
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:  # noqa: B027  most policies keep no state
        """Restore the state that `dump_state` returned.

        Parameters
        ----------
        state : mapping of str to float
            The state.
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


@dataclass
class Automatic(Policy):
    """Unbiased codes, with so much noise that it stays in proportion to what the round's updates have in common.

    Of the squared norm of the mean update, the part that is noise of the codes is known: the codes are unbiased, and
    independent of each other. The rest is the signal. After each round the noise is changed towards `tolerated` times
    the signal: many replies, or replies that agree, allow more noise in each, and fewer bytes.

    Examples
    --------
    >>> policy = Automatic()
    >>> str(policy.codec(RateContext(node="a", round=1, requests=10)))
    'crosspolytope(noise=8.0)'
    >>> policy.observe(UpdateEnergy(mean=1.0, if_orthogonal=0.1))
    >>> str(policy.codec(RateContext(node="a", round=2, requests=10)))
    'crosspolytope(noise=16.0)'
    """

    subspace: float = 0.0  # share of the dimensions in which nodes train; 0 for all
    tolerated: float = TOLERATED[DELTAS]  # noise of the mean update over its signal
    noise: float = field(default=FIRST_NOISE, repr=False)  # expected squared error of an update over its squared norm
    measured: bool = field(default=False, repr=False)  # whether any round was

    def codec(self, context: RateContext) -> Codec:
        if not self.measured:
            self.noise = min(max(FIRST_NOISE * context.requests / 10, LEAST_NOISE), FIRST_NOISE)
        return parse(auto_up(self.noise, self.subspace))

    def observe(self, energy: UpdateEnergy) -> None:
        noise = energy.if_orthogonal * self.noise / (1 + self.noise)
        signal = energy.mean - noise
        _log.debug("noise %.3g, %.3g times the signal", self.noise, noise / max(signal, 1e-300))
        if noise > 0 and math.isfinite(signal):
            self.measured = True
            change = (self.tolerated * max(signal, 0.0) / noise) ** 0.5
            self.noise = min(max(self.noise * min(max(change, 0.5), 2.0), LEAST_NOISE), MOST_NOISE)

    def dump_state(self) -> Mapping[str, float]:
        return {"noise": self.noise} if self.measured else {}

    def load_state(self, state: Mapping[str, float]) -> None:
        self.measured = "noise" in state
        self.noise = float(state.get("noise", FIRST_NOISE))


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


def build_policy(
    settings: PolicySettings, up: str, subspace: float = 0.0, *, tolerated: float = TOLERATED[DELTAS]
) -> Policy:
    """Return the policy that settings describe.

    Parameters
    ----------
    settings : PolicySettings
        Name and arguments of the policy.
    up : str
        Spec of the codec of updates, or "auto".
    subspace : float
        Share of the dimensions in which nodes train, for "auto"; 0 for all.
    tolerated : float
        Noise of the mean update over its signal, for "auto".

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
    if up == AUTO:
        if settings.name != "fixed":
            raise SettingError(f"up must be a codec with the policy {settings.name}, got {up!r}")
        return Automatic(subspace, tolerated)
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
