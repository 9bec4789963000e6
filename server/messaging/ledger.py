"""The ledger: bytes of real frames and real messages, by round, node and direction."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Direction = Literal["up", "down"]
Purpose = Literal["train", "evaluate", "ask"]  # "ask" is the query of a node's name
_DIRECTIONS: tuple[Direction, ...] = ("up", "down")
_PURPOSES: tuple[Purpose, ...] = ("train", "evaluate", "ask")
_KINDS = len(_DIRECTIONS) * len(_PURPOSES)


class LedgerEntry(NamedTuple):
    """One message and its bytes.

    Parameters
    ----------
    round : int
        Number of the round; 0 for queries of names.
    node : str
        The node's name.
    direction : str
        "up" or "down".
    purpose : str
        "train", "evaluate" or "ask".
    frame : int
        Bytes of its frames.
    message : int
        Bytes of the message as Flower serialises it, including frames.
    plain : int
        Bytes of the same tensors as float32.

    Examples
    --------
    >>> LedgerEntry(1, "a", "up", "train", frame=100, message=150, plain=1600).plain
    1600
    """

    round: int
    node: str
    direction: Direction
    purpose: Purpose
    frame: int
    message: int
    plain: int


class Totals(NamedTuple):
    """Sums over entries, in bytes.

    Parameters
    ----------
    frame, message, plain : int
        As of `LedgerEntry`.

    Examples
    --------
    >>> Totals(frame=100, message=150, plain=1600).ratio
    16.0
    """

    frame: int = 0
    message: int = 0
    plain: int = 0

    def plus(self, other: "LedgerEntry | Totals") -> "Totals":
        """Return the sums including others.

        Parameters
        ----------
        other : LedgerEntry or Totals
            The others.

        Returns
        -------
        Totals
            The sums.
        """
        return Totals(self.frame + other.frame, self.message + other.message, self.plain + other.plain)

    @property
    def ratio(self) -> float:
        """Compression ratio: bytes of the tensors as float32 over bytes of the frames; 1 if nothing was sent."""
        return self.plain / self.frame if self.frame else 1.0


@dataclass
class Ledger:
    """Counts the bytes of all messages, including refused and repeated ones, in 40 bytes of memory each.

    Examples
    --------
    >>> ledger = Ledger()
    >>> ledger.add(LedgerEntry(1, "a", "up", "train", frame=100, message=150, plain=1600))
    >>> ledger.add(LedgerEntry(1, "b", "up", "train", frame=300, message=350, plain=1600))
    >>> ledger.totals(direction="up").ratio
    8.0
    >>> ledger.by_node()["b"]["up"].frame
    300
    """

    _nodes: dict[str, int] = field(default_factory=dict)
    _columns: "tuple[array[int], ...]" = field(default_factory=lambda: tuple(array("q") for _ in range(5)))
    _sums: dict[tuple[int, Direction, Purpose], Totals] = field(default_factory=dict)

    def add(self, entry: LedgerEntry) -> None:
        """Add a message.

        Parameters
        ----------
        entry : LedgerEntry
            The message.
        """
        node = self._nodes.setdefault(entry.node, len(self._nodes))
        kind = len(_PURPOSES) * _DIRECTIONS.index(entry.direction) + _PURPOSES.index(entry.purpose)
        row = (entry.round * _KINDS + kind, node, entry.frame, entry.message, entry.plain)
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)
        self._sum(entry)

    def _sum(self, entry: LedgerEntry) -> None:
        group = (entry.round, entry.direction, entry.purpose)
        self._sums[group] = self._sums.get(group, Totals()).plus(entry)

    @property
    def table(self) -> tuple[list[str], NDArray[np.int64]]:
        """All entries: nodes by number, and a row for each message, int64 (messages, 5)."""
        return list(self._nodes), np.column_stack([np.array(column, np.int64) for column in self._columns])

    def refill(self, nodes: list[str], rows: NDArray[np.int64]) -> None:
        """Replace all entries by those of another ledger.

        Parameters
        ----------
        nodes : list of str
            The nodes of that ledger's `table`.
        rows : ndarray of int64, (messages, 5)
            The rows of that ledger's `table`.
        """
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
        """Yield entries in the order in which they were added.

        Parameters
        ----------
        first : int
            Number of entries to skip.

        Yields
        ------
        LedgerEntry
            The next entry.
        """
        names = list(self._nodes)
        for group, node, frame, message, plain in zip(*(column[first:] for column in self._columns), strict=True):
            direction, purpose = divmod(group % _KINDS, len(_PURPOSES))
            yield LedgerEntry(
                group // _KINDS, names[node], _DIRECTIONS[direction], _PURPOSES[purpose], frame, message, plain
            )

    def totals(
        self, *, round: int | None = None, direction: Direction | None = None, purpose: Purpose | None = None
    ) -> Totals:
        """Return the sums over messages.

        Parameters
        ----------
        round : int, optional
            The round; all if None.
        direction : str, optional
            "up" or "down"; both if None.
        purpose : str, optional
            "train", "evaluate" or "ask"; all if None.

        Returns
        -------
        Totals
            The sums, in bytes.
        """
        wanted = (round, direction, purpose)
        total = Totals()
        for group, sums in self._sums.items():
            if all(want in (None, has) for want, has in zip(wanted, group, strict=True)):
                total = total.plus(sums)
        return total

    def by_node(self) -> dict[str, dict[Direction, Totals]]:
        """Return the sums of each node over all rounds.

        Returns
        -------
        dict of str to dict
            By node, the sums in each direction.
        """
        nodes: dict[str, dict[Direction, Totals]] = {}
        for entry in self:
            by_direction = nodes.setdefault(entry.node, {})
            by_direction[entry.direction] = by_direction.get(entry.direction, Totals()).plus(entry)
        return nodes
