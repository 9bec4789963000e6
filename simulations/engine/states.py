"""The states of nodes between messages: on disk, large arrays once however many nodes hold them."""

from pathlib import Path

from flwr.app import RecordDict

from fedpress.simulations.engine.blobs import Blobs


class States:
    """A worker's view: loads a node's state, and lays a changed one ready."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs = Blobs(folder, lasting=True)
        self._loaded = b""

    def load(self, node: int) -> RecordDict:
        """Return the node's state; empty if it has none yet."""
        path = self._folder / str(node)
        self._loaded = path.read_bytes() if path.exists() else b""
        return self._blobs.load(self._loaded) if self._loaded else RecordDict()

    def lay_ready(self, node: int, state: RecordDict) -> frozenset[str] | None:
        """Write the state, as it is after the message that `load` was for, beside the old one.

        Returns the blobs that it refers to, or None if nothing changed. It counts once the engine has the reply and
        commits it: a worker that dies on the way leaves the state as it was.
        """
        if not state and not self._loaded:
            return None
        data, names = self._blobs.dump(state)
        if data == self._loaded:
            return None
        (self._folder / f"{node}.new").write_bytes(data)
        return names


class Ledger:
    """The engine's view: which node refers to which blobs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs = Blobs(folder, lasting=True)
        self._refers: dict[int, frozenset[str]] = {}
        self._counts: dict[str, int] = {}

    def commit(self, node: int, names: frozenset[str] | None) -> None:
        """Put the state that a worker laid ready in place of the node's old one."""
        if names is None:
            return
        (self._folder / f"{node}.new").replace(self._folder / str(node))
        for name in names:
            self._counts[name] = self._counts.get(name, 0) + 1
        for name in self._refers.get(node, frozenset()):
            self._counts[name] -= 1
        self._refers[node] = names

    def collect(self) -> None:
        """Delete what no node refers to. No worker may be writing: it might be about to refer to it again."""
        known = {path.name for path in self._folder.iterdir() if len(path.name) == 32}
        dead = {name for name in known if not self._counts.get(name)}
        self._blobs.forget(dead)
        for name in dead:
            self._counts.pop(name, None)
