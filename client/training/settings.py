"""How a node trains: settings, checked when they are read."""

from dataclasses import dataclass

from fedpress.common.errors import SettingError, unknown
from fedpress.common.settings import require

OPTIMIZERS = ("sgd", "adagrad", "rmsprop", "adam", "adamw", "nadam")
SCHEDULES = ("constant", "linear", "step", "exponential", "cosine")


@dataclass(frozen=True)
class Training:
    """Local training of one node in one round."""

    optimizer: str = "sgd"  # sgd, adagrad, rmsprop, adam, adamw or nadam
    lr: float = 0.1  # learning rate after warm-up, before the schedule's decay
    momentum: float = 0.0  # of sgd
    nesterov: bool = False  # Nesterov's momentum
    schedule: str = "constant"  # of lr, from round to round: constant, linear, step, exponential or cosine
    warmup_rounds: int = 0  # rounds over which lr rises from lr / (warmup_rounds + 1)
    lr_end: float = 0.0  # where linear and cosine end, as a share of lr
    lr_step: int = 10  # rounds between two decays of step
    lr_decay: float = 0.5  # factor of a decay: of step every lr_step rounds, of exponential every round
    batch_size: int = 32  # examples in a step
    local_epochs: int = 1  # passes over the node's examples
    local_steps: int = 0  # if above 0, so many batches in place of local_epochs
    l1: float = 0.0  # weight of the sum of magnitudes in the loss
    weight_decay: float = 0.0  # L2: decoupled in adamw, part of the gradient elsewhere
    clip_norm: float = 0.0  # if above 0, gradients are scaled down to this norm
    proximal_mu: float = 0.0  # FedProx: weight of half the squared distance from the round's model

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise SettingError(unknown("optimizer", self.optimizer, OPTIMIZERS))
        if self.schedule not in SCHEDULES:
            raise SettingError(unknown("schedule", self.schedule, SCHEDULES))
        for name in ("lr", "lr_decay"):
            require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        for name in ("batch_size", "local_epochs", "lr_step"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("warmup_rounds", "local_steps", "l1", "weight_decay", "clip_norm", "proximal_mu"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        require(0 <= self.momentum < 1, "momentum", "in [0, 1)", self.momentum)
        require(0 <= self.lr_end <= 1, "lr_end", "in [0, 1]", self.lr_end)
        if self.momentum and self.optimizer != "sgd":
            raise SettingError(f"momentum belongs to sgd, got momentum {self.momentum} with {self.optimizer}")
        if self.nesterov and not self.momentum:
            raise SettingError("nesterov needs a momentum above 0")
