"""The guard: a distilled model replaces the average only if it is better by the criterion in the settings."""

from dataclasses import dataclass

from torch import Tensor, nn

from fedpress.compression.model.evaluation import scores_of
from fedpress.server.messaging.node_evaluation import ModelScore


@dataclass(frozen=True)
class Verdict:
    """The guard's decision, and the scores that it is based on."""

    criterion: str
    taken: bool
    before: ModelScore | None = None  # of the averaged model; None if it was not evaluated
    after: ModelScore | None = None  # of the distilled model

    def __str__(self) -> str:
        decision = f"distilled model {'accepted' if self.taken else 'rejected'}, by {self.criterion}"
        if self.before is None or self.after is None:
            return f"{decision}: not evaluated"
        after, before = self.after, self.before
        return (
            f"{decision}: loss and accuracy {after.loss:.4f} {after.accuracy:.4f}, "
            f"were {before.loss:.4f} {before.accuracy:.4f}"
        )

    def facts(self) -> dict[str, str | bool | list[float]]:
        """Return the verdict as an entry of result.json: scores of the averaged and of the distilled model."""
        scores = [self.before, self.after] if self.before and self.after else []
        return {
            "criterion": self.criterion,
            "taken": self.taken,
            "loss": [round(score.loss, 6) for score in scores],
            "accuracy": [round(score.accuracy, 6) for score in scores],
        }


def decide(criterion: str, before: ModelScore, after: ModelScore, margin: float) -> Verdict:
    """Accept a distilled model whose loss is lower by more than the share `margin` and whose accuracy is not lower."""
    better = after.loss < (1 - margin) * before.loss and after.accuracy >= before.accuracy
    return Verdict(criterion, better, before, after)


def on_targets(model: nn.Module, x: Tensor, y: Tensor, device: str) -> ModelScore:
    """Return loss and accuracy on examples with targets."""
    scores, targets = scores_of(model, x, device).flatten(0, -2), y.flatten()
    loss = nn.functional.cross_entropy(scores, targets)
    return ModelScore(float(loss), float((scores.argmax(-1) == targets).float().mean()))


def on_agreement(model: nn.Module, x: Tensor, wanted: Tensor, device: str) -> ModelScore:
    """Return the cross-entropy with an ensemble's scores of `x`, and the share of equal predictions."""
    log_probs = scores_of(model, x, device).log_softmax(-1)
    loss = -(wanted.softmax(-1) * log_probs).sum(-1).mean()
    return ModelScore(float(loss), float((log_probs.argmax(-1) == wanted.argmax(-1)).float().mean()))
