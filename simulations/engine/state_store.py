"""The states of nodes between messages: on disk, named by their hashes, large arrays once for all nodes."""

import json
import logging
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from flwr.app import RecordDict

from fedpress.common.logs import LOGGER
from fedpress.protocol.records import from_rows, to_rows
from fedpress.simulations.engine.blob_store import Blobs

_log = logging.getLogger(LOGGER)

_SNAPSHOTS = 2  # that can be restored


class NodeStates:
    """A worker's part: loads a node's state, and writes the next one."""

    def __init__(self, folder: Path) -> None:
        self._blobs = Blobs(folder, lasting=True)

    def load(self, name: str) -> RecordDict:
        """Return the state `name`; an empty one for an empty name."""
        return from_rows(json.loads(self._blobs.get(name)), self._blobs.get) if name else RecordDict()

    def write(self, state: RecordDict, old: str) -> tuple[str, frozenset[str]] | None:
        """Write the state that follows the one named `old`.

        The engine commits it with the reply: if the worker dies before, the node keeps its old state.

        Parameters
        ----------
        state : RecordDict
            The state.
        old : str
            Name of the state before; empty if there was none.

        Returns
        -------
        tuple of (str, frozenset of str) or None
            The state's name, and the names of all its blobs; None if it did not change.
        """
        if not state and not old:
            return None
        names: list[str] = []

        def put(data: bytes) -> str:
            names.append(self._blobs.put(data))
            return names[-1]

        name = self._blobs.put(json.dumps(to_rows(state, put)).encode())
        return None if name == old else (name, frozenset({name, *names}))


class StateLedger:
    """The engine's part: the name of each node's state, now and at the last snapshots."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs = Blobs(folder, lasting=True)
        self._heads: dict[int, tuple[str, frozenset[str]]] = {}
        self._snapshots: deque[dict[int, tuple[str, frozenset[str]]]] = deque(maxlen=_SNAPSHOTS)
        self._synced: set[str] = set()  # blobs that the last snapshot referred to, which are on the disk

    def head(self, node: int) -> str:
        """Return the name of a node's state; empty if it has none yet."""
        return self._heads[node][0] if node in self._heads else ""

    def commit(self, node: int, state: tuple[str, frozenset[str]] | None) -> None:
        """Replace a node's state by the one that a worker wrote; None keeps the old one."""
        if state is not None:
            self._heads[node] = state

    def collect(self) -> None:
        """Delete blobs that no node refers to; no worker may write meanwhile."""
        heads = (head for held in (self._heads, *self._snapshots) for head in held.values())
        alive = set().union(*(names for _, names in heads))
        self._blobs.forget({path.name for path in self._folder.iterdir()} - alive)

    def snapshot(self) -> dict[str, list[str]]:
        """Return the names of all nodes' states as JSON; it can be restored until two more snapshots are taken.

        The states are on the disk when this returns.
        """
        self._snapshots.append(dict(self._heads))
        alive = set().union(*(names for _, names in self._heads.values()))
        self._blobs.sync(alive - self._synced)
        self._synced = alive
        return {str(node): [head, *sorted(names - {head})] for node, (head, names) in self._heads.items()}

    def restore(self, snapshot: Mapping[str, list[str]]) -> bool:
        """Restore the nodes' states of a snapshot; return False if none is there.

        A node whose state is missing or not what was written has none.
        """
        heads = {int(node): (names[0], frozenset(names)) for node, names in snapshot.items()}
        alive = set().union(*(names for _, names in heads.values()))
        broken = {name for name in alive if not self._blobs.is_intact(name)}
        self._heads = {node: (head, names) for node, (head, names) in heads.items() if not names & broken}
        self._snapshots.append(dict(self._heads))
        self._synced = alive - broken
        self.collect()  # also of blobs of an unfinished round: one of the same name would be taken as it is
        if heads and not self._heads:
            return False
        if broken:
            _log.warning(
                "the states of %d of %d nodes in %s are missing or not what was written: these nodes start anew",
                len(heads) - len(self._heads),
                len(heads),
                self._folder,
            )
        return True
