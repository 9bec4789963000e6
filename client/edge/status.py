"""How a client is doing: what its health service and its metrics show."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Status:
    """Written by the runner, read by others in other threads; each field is one value, so no lock is needed."""

    connected: bool = False  # whether the server may send work here
    holding: str = ""  # why no work is taken, if a limit says so
    messages: Counter[str] = field(default_factory=Counter)  # that were answered, by kind: train, evaluate, query
    failures: Counter[str] = field(default_factory=Counter)  # by kind: app, disk, server, key, version
    seconds: float = 0.0  # in the app, all together
    watchers: list[Callable[[bool], None]] = field(default_factory=list, repr=False)  # told of each change

    def connect(self, connected: bool) -> None:
        """Note whether the server may send work here."""
        self.connected = connected
        for watcher in self.watchers:
            watcher(connected)
