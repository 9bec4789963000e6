"""The guard: a taught model takes the average's place only if it is better by the criterion that the user picks."""

from dataclasses import dataclass

from torch import Tensor, nn

from fedpress.extensions.distillation.ensemble import scores_of
from fedpress.server.messaging.node_evaluation import ModelScore


@dataclass(frozen=True)
class Verdict:
    """What the guard decided, and on what grounds."""

    criterion: str
    taken: bool
    before: ModelScore | None = None  # of the averaged model; None where nothing was measured
    after: ModelScore | None = None  # of the taught one

    def __str__(self) -> str:
        said = f"distilled model {'takes its place' if self.taken else 'is not taken'}, by {self.criterion}"
        if self.before is None or self.after is None:
            return f"{said}: nothing was measured"
        after, before = self.after, self.before
        return (
            f"{said}: loss and accuracy {after.loss:.4f} {after.accuracy:.4f}, "
            f"were {before.loss:.4f} {before.accuracy:.4f}"
        )

    def facts(self) -> dict[str, str | bool | list[float]]:
        """Return it as result.json has it: scores of the averaged model and of the taught one."""
        scores = [self.before, self.after] if self.before and self.after else []
        return {
            "criterion": self.criterion,
            "taken": self.taken,
            "loss": [round(score.loss, 6) for score in scores],
            "accuracy": [round(score.accuracy, 6) for score in scores],
        }


def decide(criterion: str, before: ModelScore, after: ModelScore, margin: float) -> Verdict:
    """Return the verdict on a taught model: a loss lower by more than the share `margin`, and no less accuracy."""
    better = after.loss < (1 - margin) * before.loss and after.accuracy >= before.accuracy
    return Verdict(criterion, better, before, after)


def on_targets(model: nn.Module, x: Tensor, y: Tensor, device: str) -> ModelScore:
    """Return loss and accuracy on examples with targets."""
    scores, targets = scores_of(model, x, device).flatten(0, -2), y.flatten()
    loss = nn.functional.cross_entropy(scores, targets)
    return ModelScore(float(loss), float((scores.argmax(-1) == targets).float().mean()))


def on_agreement(model: nn.Module, x: Tensor, wanted: Tensor, device: str) -> ModelScore:
    """Return the cross-entropy with what an ensemble says of `x`, and how often its likeliest answer is the same."""
    said = scores_of(model, x, device).log_softmax(-1)
    loss = -(wanted.softmax(-1) * said).sum(-1).mean()
    return ModelScore(float(loss), float((said.argmax(-1) == wanted.argmax(-1)).float().mean()))
