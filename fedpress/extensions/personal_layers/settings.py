"""Which tensors stay on each node, and how nodes fine-tune the last model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpress.common.settings import option
from fedpress.settings.extension import ExtensionSettings, require_holdout, spread_line

if TYPE_CHECKING:
    from fedpress.settings import RunSettings

TABLE = "personal.csv"  # scores of each node before and after fine-tuning


@dataclass(frozen=True)
class PersonalLayersSettings(ExtensionSettings):
    """Tensors that stay on the node, and fine-tuning after the last round."""

    files = (TABLE,)

    tensors: tuple[str, ...] = option((), help="tensors that stay on each node: head, norm, or patterns of names")
    finetune_epochs: int = option(0, minimum=0, help="epochs in which each node fine-tunes the last model; 0 for none")
    finetune_lr: float = option(0.0, minimum=0, help="learning rate of the fine-tuning; 0 for lr")
    finetune_share: float = option(1.0, above=0, maximum=1, help="share of the nodes that fine-tune")

    @property
    def active(self) -> bool:
        """Whether tensors stay on the nodes, or nodes fine-tune the last model."""
        return bool(self.tensors) or self.finetune_epochs > 0

    def highlights(self, scores: Mapping[str, Any]) -> dict[str, str]:
        if nodes := scores.get("nodes"):
            return {f"nodes {when} fine-tuning": spread_line(nodes[when]) for when in ("before", "after")}
        measured = "nodes_accuracy" in scores or not self.tensors
        return {} if measured else {"nodes": "not evaluated, as fraction-evaluate is 0"}

    def measures(self, rounds: Sequence[Mapping[str, Any]], final: Mapping[str, Any], last: int) -> dict[str, float]:
        return {
            f"nodes {when} tuning, {name}, %": 100 * nodes[name]
            for when, nodes in final.get("nodes", {}).items()
            for name in ("mean", "p10", "worst")
        }

    def check_run(self, run: "RunSettings") -> None:
        if self.finetune_epochs:
            require_holdout(run, "finetune-epochs")
