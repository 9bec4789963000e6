"""The interval between polls: short after work, longer without, and spread over the devices after a lost connection.

Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

import random

from fedpress.settings.device import PollingSettings

_GROWTH = 1.4  # from one answer of nothing to the next
_SPREAD = 0.1  # of a wait, so that nodes do not keep step
_CEILING = 32  # doublings: no more are needed, and a float holds them


class Backoff:
    """Says how long to wait, given what came of the last question."""

    def __init__(self, polling: PollingSettings, rng: random.Random | None = None) -> None:
        self._polling = polling
        self._rng = rng or random.Random()  # noqa: S311  nothing secret hangs on it
        self._wait = polling.poll_min
        self._failures = 0

    def busy(self) -> None:
        """Note that there was work: more may follow soon."""
        self._wait = self._polling.poll_min
        self._failures = 0

    def idle(self) -> float:
        """Return how long to wait after an answer of nothing, seconds."""
        self._failures = 0
        wait = self._wait
        self._wait = min(wait * _GROWTH, self._polling.poll_max)
        return wait * self._rng.uniform(1 - _SPREAD, 1)

    def away(self) -> float:
        """Return how long to wait after no answer, seconds."""
        most = min(self._polling.backoff * 2.0**self._failures, self._polling.backoff_max)
        self._failures = min(self._failures + 1, _CEILING)
        return self._rng.uniform(0, most)

    def refused(self) -> float:
        """Return how long to wait after the server turned the key down, seconds."""
        return self._polling.refused * self._rng.uniform(1 - _SPREAD, 1)
