"""The settings of gradual pruning."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fedpress.common.errors import SettingError
from fedpress.common.settings import option
from fedpress.settings.extension import ExtensionSettings

if TYPE_CHECKING:
    from fedpress.settings import RunSettings


@dataclass(frozen=True)
class SparsitySettings(ExtensionSettings):
    """Gradual pruning: pruned weights are zero on every node and are never sent."""

    changes_model: ClassVar[bool] = True

    target: float = option(
        0.0,
        minimum=0,
        below=1,
        help="share of the weights that is pruned after the last pruning, 0 for none; biases are not pruned",
    )
    first_round: int = option(1, minimum=1, help="first round after which weights are pruned")
    last_round: int = option(20, minimum=1, help="last round after which weights are pruned")
    every: int = option(5, minimum=1, help="rounds between two prunings")

    @property
    def active(self) -> bool:
        """Whether weights are pruned during training."""
        return self.target > 0

    @property
    def prunes(self) -> bool:
        return self.active

    def highlights(self, scores: Mapping[str, Any]) -> dict[str, str]:
        return {"pruned": f"{scores['pruned']:.1%}"} if "pruned" in scores else {}

    def check(self) -> None:
        if self.last_round < self.first_round:
            raise SettingError(f"last-round must be at least first-round, {self.first_round}, got {self.last_round}")

    def check_run(self, run: "RunSettings") -> None:
        if self.target and self.last_round > run.server.rounds:
            raise SettingError(f"last-round must be at most rounds, {run.server.rounds}, got {self.last_round}")

    def prunes_after(self, number: int) -> bool:
        """Return whether weights are pruned after round `number`."""
        if not self.target or not self.first_round <= number <= self.last_round:
            return False
        return (number - self.first_round) % self.every == 0 or number == self.last_round

    def pruned_share(self, number: int) -> float:
        """Return the share of the weights that is to be pruned after round `number`.

        It rises along a cubic, fastest at first: Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878. The first
        pruning is one step along the curve, which begins at zero.
        """
        if number < self.first_round:
            return 0.0
        if number >= self.last_round:
            return self.target
        steps = -(-(self.last_round - self.first_round) // self.every) + 1
        done = (number - self.first_round) // self.every + 1
        return self.target * (1 - (1 - done / steps) ** 3)
