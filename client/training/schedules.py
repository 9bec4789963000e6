"""Learning rates across rounds; cosine: Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983."""

import math

from fedpress.settings.training import TrainingSettings


def learning_rate(training: TrainingSettings, round: int, rounds: int) -> float:
    """Return the learning rate of `round`, from 1 to `rounds`.

    After warm-up the schedule runs from lr, in its first round, to its end value, which it would reach in the round
    after the last, as in torch's schedulers, so that no round trains at a rate of 0.
    """
    warm = training.warmup_rounds
    if round <= warm:
        return training.lr * round / (warm + 1)
    past = round - warm - 1  # rounds since the warm-up
    share = past / (rounds - warm)  # 0 in the first of them
    end = training.lr_end
    match training.schedule:
        case "linear":
            factor = 1 - (1 - end) * share
        case "cosine":
            factor = end + (1 - end) * (1 + math.cos(math.pi * share)) / 2
        case "step":
            factor = training.lr_decay ** (past // training.lr_step)
        case "exponential":
            factor = training.lr_decay**past
        case _:
            factor = 1.0
    return training.lr * factor
