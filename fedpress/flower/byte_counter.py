"""What a device sent and received, request by request."""

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class ByteCounter:
    """Bytes of HTTP, headers too: what is below, TLS and TCP, the process does not see."""

    up: int = 0  # bytes sent
    down: int = 0  # bytes received
    requests: Counter[str] = field(default_factory=Counter)  # by name
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def sent(self, name: str, nbytes: int) -> None:
        """Note that a request goes out."""
        with self._lock:
            self.requests[name] += 1
            self.up += nbytes

    def received(self, nbytes: int) -> None:
        """Note that an answer came."""
        with self._lock:
            self.down += nbytes

    @property
    def total(self) -> int:
        """Bytes both ways."""
        return self.up + self.down
