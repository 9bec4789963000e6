"""How sparse the model becomes, and when: settings, checked when they are read."""

from dataclasses import dataclass

from fedpress.common.errors import SettingError, unknown
from fedpress.common.settings import require
from fedpress.extensions import ExtensionSettings

METHODS = ("gradual",)


@dataclass(frozen=True)
class SparsitySettings(ExtensionSettings):
    """Sparse training: dead weights are zero on every node and never travel."""

    sparsify: str = ""  # gradual; empty for a dense model
    sparsity: float = 0.8  # share of the weights that are dead in the end; biases and the like are not among them
    sparsify_rounds: str = "1:20"  # the first round after which weights die, and the last after which any do
    sparsify_every: int = 5  # rounds between two changes

    def __post_init__(self) -> None:
        if self.sparsify and self.sparsify not in METHODS:
            raise SettingError(unknown("sparsify", self.sparsify, METHODS))
        require(0 < self.sparsity < 1, "sparsity", "in (0, 1)", self.sparsity)
        require(self.sparsify_every >= 1, "sparsify_every", "at least 1", self.sparsify_every)
        first, colon, last = self.sparsify_rounds.partition(":")
        if not (colon and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
            raise SettingError(
                f"sparsify-rounds is FIRST:LAST, from 1 on and in this order, got {self.sparsify_rounds!r}"
            )

    @property
    def enabled(self) -> bool:
        """Whether the model becomes sparse."""
        return bool(self.sparsify)

    @property
    def first(self) -> int:
        """The first round after which weights die."""
        return int(self.sparsify_rounds.partition(":")[0])

    @property
    def last(self) -> int:
        """The last round after which any do."""
        return int(self.sparsify_rounds.partition(":")[2])

    def check(self, rounds: int) -> None:
        """Raise SettingError if a run of so many rounds ends before its model is as sparse as it is to become."""
        if self.sparsify and self.last > rounds:
            raise SettingError(
                f"sparsify-rounds end within the run's rounds, {rounds}, or it stops short of its sparsity: got "
                f"{self.sparsify_rounds!r}"
            )

    def changes(self, number: int) -> bool:
        """Whether the mask changes after round `number`."""
        if not self.sparsify or not self.first <= number <= self.last:
            return False
        return (number - self.first) % self.sparsify_every == 0 or number == self.last

    def share_dead(self, number: int) -> float:
        """Return the share of the weights that is to be dead after round `number`.

        It goes there along a cubic, fast at first: Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878. The first step
        is one part of the way, since the curve begins at zero.
        """
        if number < self.first:
            return 0.0
        if number >= self.last:
            return self.sparsity
        steps = -(-(self.last - self.first) // self.sparsify_every) + 1
        done = (number - self.first) // self.sparsify_every + 1
        return self.sparsity * (1 - (1 - done / steps) ** 3)
