"""Learning from answers, hard and soft: Hinton et al. 2015, https://arxiv.org/abs/1503.02531."""

from torch import Tensor, nn


def loss_of(said: Tensor, taught: Tensor | None, targets: Tensor | None, temperature: float, alpha: float) -> Tensor:
    """Return the loss of scores `said` (n, ..., classes) where the teacher's are `taught`; either teaches alone too.

    Soft answers weigh temperature squared, so that their gradients stay as large as those of the targets.
    """
    loss = said.new_zeros(())
    if taught is not None:
        wanted = (taught / temperature).softmax(-1)
        soft = -(wanted * (said / temperature).log_softmax(-1)).sum(-1).mean()
        loss = loss + alpha * temperature**2 * soft
    if targets is not None and alpha < 1:
        loss = loss + (1 - alpha) * nn.functional.cross_entropy(said.flatten(0, -2), targets.flatten())
    return loss
