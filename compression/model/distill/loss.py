"""The loss of distillation: Hinton et al. 2015, https://arxiv.org/abs/1503.02531."""

from torch import Tensor, nn


def loss_of(scores: Tensor, teacher: Tensor | None, targets: Tensor | None, temperature: float, alpha: float) -> Tensor:
    """Return the loss of scores (n, ..., classes) against the teacher's scores, the targets, or both.

    The teacher's part is multiplied by the squared temperature, so that its gradients are as large as the targets'.
    """
    loss = scores.new_zeros(())
    if teacher is not None:
        soft_targets = (teacher / temperature).softmax(-1)
        soft = -(soft_targets * (scores / temperature).log_softmax(-1)).sum(-1).mean()
        loss = loss + alpha * temperature**2 * soft
    if targets is not None and alpha < 1:
        loss = loss + (1 - alpha) * nn.functional.cross_entropy(scores.flatten(0, -2), targets.flatten())
    return loss
