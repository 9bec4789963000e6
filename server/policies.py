"""Policies of rate: which codec each node is to use in each round."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedpress.compression import Codec, parse
from fedpress.compression.settings import require


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
    """So many bytes of updates a round, shared alike."""

    up: str  # its quantiser is told how many bytes
    nbytes: int  # of all updates of a round together

    def __post_init__(self) -> None:
        require(self.nbytes >= 1, "nbytes", "at least 1", self.nbytes)
        parse(self.up).aimed(bytes=1)

    def codec(self, known: Known) -> Codec:
        return parse(self.up).aimed(bytes=max(1, self.nbytes // known.asked))


@dataclass(frozen=True)
class Schedule(Policy):
    """So many bits a parameter from a round on, until another number takes over."""

    up: str  # its quantiser is told how many bytes that makes
    bits: Mapping[int, float]  # first round -> bits a parameter; the first holds from round 1

    def __post_init__(self) -> None:
        require(bool(self.bits), "bits", "not empty", self.bits)
        for first, bits in self.bits.items():
            require(bits > 0, f"bits from round {first}", "above 0", bits)
        parse(self.up).aimed(bytes=1)

    def codec(self, known: Known) -> Codec:
        begun = [first for first in self.bits if first <= known.round]
        bits = self.bits[max(begun) if begun else min(self.bits)]
        return parse(self.up).aimed(bytes=max(1, int(bits * known.parameters / 8)))


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
    least: int = 256  # bytes that even the slowest node gets

    def __post_init__(self) -> None:
        require(self.seconds > 0, "seconds", "above 0", self.seconds)
        for rate in (self.bytes_per_second, *self.links.values()):
            require(rate > 0, "bytes_per_second", "above 0", rate)
        parse(self.up).aimed(bytes=1)

    def codec(self, known: Known) -> Codec:
        left = self.seconds - self.training.get(known.node, known.seconds)
        room = max(self.least, int(left * self.links.get(known.node, self.bytes_per_second)))
        codec = parse(self.up)
        # Before any node has used it nobody knows what it takes; then a fifth is left for updates that take more.
        return codec if 1.2 * known.costs.get(str(codec), 0.0) <= room else codec.aimed(bytes=room)
