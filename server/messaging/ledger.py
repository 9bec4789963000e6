"""The ledger: bytes of real frames and real messages, by round, node and direction."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Direction = Literal["up", "down"]
Purpose = Literal["train", "evaluate", "ask"]  # to ask is to ask a node for its name
_DIRECTIONS: tuple[Direction, ...] = ("up", "down")
_PURPOSES: tuple[Purpose, ...] = ("train", "evaluate", "ask")
_WAYS = len(_DIRECTIONS) * len(_PURPOSES)


class LedgerEntry(NamedTuple):
    """One message: who, when, which way, what for, and its bytes."""

    round: int
    node: str
    direction: Direction
    purpose: Purpose
    frame: int  # bytes of the frames it carried
    message: int  # bytes of the message as Flower serialises it, frames included
    plain: int  # bytes of the same tensors as float32


class Totals(NamedTuple):
    """Sums over entries, bytes."""

    frame: int = 0
    message: int = 0
    plain: int = 0

    def plus(self, other: "LedgerEntry | Totals") -> "Totals":
        """Return the sums with one more counted in."""
        return Totals(self.frame + other.frame, self.message + other.message, self.plain + other.plain)

    @property
    def ratio(self) -> float:
        """How many times smaller the frames are than the same tensors as float32; 1 if nothing was sent."""
        return self.plain / self.frame if self.frame else 1.0


@dataclass
class Ledger:
    """Counts everything that was sent, refused and repeated messages too.

    Columns of machine integers: 40 bytes a message, so a long run's ledger stays small.
    """

    _nodes: dict[str, int] = field(default_factory=dict)
    _columns: "tuple[array[int], ...]" = field(default_factory=lambda: tuple(array("q") for _ in range(5)))
    _sums: dict[tuple[int, Direction, Purpose], Totals] = field(default_factory=dict)

    def add(self, entry: LedgerEntry) -> None:
        """Write one message down."""
        node = self._nodes.setdefault(entry.node, len(self._nodes))
        way = len(_PURPOSES) * _DIRECTIONS.index(entry.direction) + _PURPOSES.index(entry.purpose)
        row = (entry.round * _WAYS + way, node, entry.frame, entry.message, entry.plain)
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)
        self._sum(entry)

    def _sum(self, entry: LedgerEntry) -> None:
        group = (entry.round, entry.direction, entry.purpose)
        self._sums[group] = self._sums.get(group, Totals()).plus(entry)

    @property
    def table(self) -> tuple[list[str], NDArray[np.int64]]:
        """All that was written down: nodes by number, and a row for each message, int64 (messages, 5)."""
        return list(self._nodes), np.column_stack([np.array(column, np.int64) for column in self._columns])

    def refill(self, nodes: list[str], rows: NDArray[np.int64]) -> None:
        """Become the ledger whose `table` this is."""
        self._nodes = {node: number for number, node in enumerate(nodes)}
        self._columns = tuple(array("q", column) for column in rows.T.tolist())
        self._sums = {}
        for entry in self:
            self._sum(entry)

    def __len__(self) -> int:
        return len(self._columns[0])

    def __iter__(self) -> Iterator[LedgerEntry]:
        return self.since(0)

    def since(self, first: int) -> Iterator[LedgerEntry]:
        """Yield what was written down from entry `first` on."""
        names = list(self._nodes)
        for when, node, frame, message, plain in zip(*(column[first:] for column in self._columns), strict=True):
            direction, purpose = divmod(when % _WAYS, len(_PURPOSES))
            yield LedgerEntry(
                when // _WAYS, names[node], _DIRECTIONS[direction], _PURPOSES[purpose], frame, message, plain
            )

    def totals(
        self, *, round: int | None = None, direction: Direction | None = None, purpose: Purpose | None = None
    ) -> Totals:
        """Return the sums over the messages of one round, one direction, one purpose, or of all where None."""
        wanted = (round, direction, purpose)
        total = Totals()
        for group, sums in self._sums.items():
            if all(want in (None, has) for want, has in zip(wanted, group, strict=True)):
                total = total.plus(sums)
        return total

    def by_node(self) -> dict[str, dict[Direction, Totals]]:
        """Return the sums of each node, each way, over all rounds."""
        nodes: dict[str, dict[Direction, Totals]] = {}
        for entry in self:
            ways = nodes.setdefault(entry.node, {})
            ways[entry.direction] = ways.get(entry.direction, Totals()).plus(entry)
        return nodes
