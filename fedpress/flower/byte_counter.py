"""A counter of the bytes and requests of a device."""

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class ByteCounter:
    """Bytes of HTTP with headers, without TLS and TCP, which the process cannot measure."""

    up: int = 0  # bytes sent
    down: int = 0  # bytes received
    requests: Counter[str] = field(default_factory=Counter)  # by name
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def sent(self, name: str, nbytes: int) -> None:
        """Count a request that is sent."""
        with self._lock:
            self.requests[name] += 1
            self.up += nbytes

    def received(self, nbytes: int) -> None:
        """Count the bytes of a response."""
        with self._lock:
            self.down += nbytes

    @property
    def total(self) -> int:
        """Bytes sent and received."""
        return self.up + self.down
