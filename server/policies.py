"""Policies of rate: which codec each node is to use in each round."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import get_args, get_type_hints

from fedpress.compression import Codec, parse
from fedpress.compression.errors import SettingError, unknown
from fedpress.compression.settings import Value, convert, key_of, require


@dataclass(frozen=True)
class Known:
    """What is known of a node when its codec is picked."""

    node: str  # its name
    round: int
    asked: int  # nodes that are asked in this round, this one included
    parameters: int  # floating-point numbers of the model
    seconds: float  # how long its last training took, as it says; 0 if it has not trained yet
    frame: int  # bytes of its last update that counted; 0 if none has
    norm: float  # of that update, L2
    costs: Mapping[str, float]  # spec -> bytes that a frame of it took lately, whichever node's
    exact: int = 0  # bytes of the model's tensors that no codec approximates: a frame takes about as many in any case


LEAST = 256  # bytes of a frame whose values all become zero, and more


class Policy(ABC):
    """Picks codecs. All that one policy picks must keep the same memory on a node, or what they keep would be lost."""

    @abstractmethod
    def codec(self, known: Known) -> Codec:
        """Return the codec of the node's next update."""


@dataclass(frozen=True)
class Fixed(Policy):
    """The same codec for everyone, always."""

    up: str

    def codec(self, known: Known) -> Codec:
        return parse(self.up)


@dataclass(frozen=True)
class Budget(Policy):
    """So many bytes of updates a round, shared alike; more only where what travels exactly takes more."""

    up: str  # its quantiser is told how many bytes
    nbytes: int  # of all updates of a round together

    def __post_init__(self) -> None:
        require(self.nbytes >= 1, "nbytes", "at least 1", self.nbytes)
        parse(self.up).aimed(bytes=1)

    def codec(self, known: Known) -> Codec:
        return parse(self.up).aimed(bytes=_possible(self.nbytes // known.asked, known))


@dataclass(frozen=True)
class Schedule(Policy):
    """One target from a round on, until another takes over: bits a parameter, or NMSE."""

    up: str  # its quantiser is told the target
    bits: Mapping[int, float] = field(default_factory=dict)  # first round -> bits; the first holds from round 1
    nmse: Mapping[int, float] = field(default_factory=dict)  # in place of bits: first round -> NMSE

    def __post_init__(self) -> None:
        if bool(self.bits) == bool(self.nmse):
            raise SettingError(f"a schedule takes one of bits and nmse, got bits {self.bits} and nmse {self.nmse}")
        for first, value in (self.bits or self.nmse).items():
            require(value > 0, f"what holds from round {first}", "above 0", value)
        for value in self.nmse.values():
            parse(self.up).aimed(nmse=value)
        parse(self.up).aimed(bytes=1)

    def codec(self, known: Known) -> Codec:
        steps = self.bits or self.nmse
        begun = [first for first in steps if first <= known.round]
        value = steps[max(begun) if begun else min(steps)]
        if self.nmse:
            return parse(self.up).aimed(nmse=value)
        return parse(self.up).aimed(bytes=_possible(int(value * known.parameters / 8), known))


@dataclass(frozen=True)
class Deadline(Policy):
    """A round's reply is due after so many seconds: slow links, and nodes that train slowly, get fewer bits.

    With measured training times two runs of one seed pick different codecs; give `training` to repeat a run.
    """

    up: str  # used as it is where it is expected to make the deadline, else its quantiser is told how many bytes
    seconds: float  # from question to answer
    bytes_per_second: float  # up, of nodes that `links` does not name
    links: Mapping[str, float] = field(default_factory=dict)  # node -> bytes a second, up
    training: Mapping[str, float] = field(default_factory=dict)  # node -> seconds; others are measured
    least: int = LEAST  # bytes that even the slowest node gets, beside those of what travels exactly

    def __post_init__(self) -> None:
        require(self.seconds > 0, "seconds", "above 0", self.seconds)
        for rate in (self.bytes_per_second, *self.links.values()):
            require(rate > 0, "bytes_per_second", "above 0", rate)
        parse(self.up).aimed(bytes=1)

    def codec(self, known: Known) -> Codec:
        left = self.seconds - self.training.get(known.node, known.seconds)
        room = max(self.least + known.exact, int(left * self.links.get(known.node, self.bytes_per_second)))
        codec = parse(self.up)
        # Before any node has used it nobody knows what it takes; then a fifth is left for updates that take more.
        return codec if 1.2 * known.costs.get(str(codec), 0.0) <= room else codec.aimed(bytes=room)


def _possible(nbytes: int, known: Known) -> int:
    """Return `nbytes`, or what a frame takes in any case where that is more: a target below it fails every reply."""
    return max(1, nbytes, known.exact + LEAST if known.exact else 0)


PREFIX = "policy."  # of the keys that hold a policy's arguments
POLICIES: dict[str, type[Policy]] = {"fixed": Fixed, "budget": Budget, "schedule": Schedule, "deadline": Deadline}


def build_policy(config: Mapping[str, Value]) -> Policy:
    """Return the policy that a run's configuration names.

    A mapping is written as pairs between commas: `policy.bits = "1:1.0,20:0.5"`.

    Raises
    ------
    SettingError
        If there is none of this name, or it takes no such argument, or not with this value.
    """
    name, up = str(config.get("policy", "fixed")), str(config["up"])
    if name not in POLICIES:
        raise SettingError(unknown("policy", name, POLICIES))
    make = POLICIES[name]
    takes = {key_of(field.name): field for field in fields(make) if field.name != "up"}  # type: ignore[arg-type]
    hints = get_type_hints(make)
    given: dict[str, object] = {}
    for key, value in config.items():
        if not key.startswith(PREFIX):
            continue
        short = key.removeprefix(PREFIX)
        if short not in takes:
            there = ", ".join(PREFIX + other for other in takes) or "no arguments"
            raise SettingError(f"policy {name} takes {there}, got {key}")
        hint = hints[takes[short].name]
        given[takes[short].name] = (
            convert(key, value, hint) if hint in (int, float) else _pairs(key, str(value), get_args(hint)[0])
        )
    lacking = [PREFIX + key for key, f in takes.items() if f.default is MISSING and f.default_factory is MISSING]
    if lacking := [key for key in lacking if takes[key.removeprefix(PREFIX)].name not in given]:
        raise SettingError(f"policy {name} needs {', '.join(lacking)}")
    return make(up, **given)  # type: ignore[call-arg]


def _pairs(key: str, text: str, kind: type) -> dict[object, float]:
    pairs: dict[object, float] = {}
    for pair in text.split(","):
        left, _, right = pair.partition(":")
        try:
            pairs[kind(left.strip())] = float(right)
        except ValueError as error:
            raise SettingError(f"{key} is pairs such as 1:0.5,20:0.25, got {text!r}") from error
    return pairs


def describe(policy: Policy) -> str:
    """Return a policy as text that is the same in the process that goes on with a run."""
    plain = type(policy).__repr__ is object.__repr__
    return f"{type(policy).__module__}.{type(policy).__qualname__}" if plain else repr(policy)
