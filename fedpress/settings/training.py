"""How a client trains in one round."""

from dataclasses import dataclass

from fedpress.common.errors import SettingError
from fedpress.common.settings import Settings, option

OPTIMIZERS = ("sgd", "adagrad", "rmsprop", "adam", "adamw", "nadam")
SCHEDULES = ("constant", "linear", "step", "exponential", "cosine")


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Local training of one client in one round."""

    optimizer: str = option("sgd", choices=OPTIMIZERS, help="the optimizer")
    lr: float = option(0.1, above=0, help="learning rate after warm-up, before the schedule's decay")
    momentum: float = option(0.0, minimum=0, below=1, help="momentum of sgd")
    nesterov: bool = option(False, help="use Nesterov momentum")
    schedule: str = option("constant", choices=SCHEDULES, help="how lr changes from round to round")
    warmup_rounds: int = option(0, minimum=0, help="rounds over which lr rises from lr / (warmup-rounds + 1)")
    lr_end: float = option(0.0, minimum=0, maximum=1, help="final value of linear and cosine, as a share of lr")
    lr_step: int = option(10, minimum=1, help="rounds between two decays of the schedule step")
    lr_decay: float = option(
        0.5, above=0, help="factor of a decay: every lr-step rounds with step, every round with exponential"
    )
    batch_size: int = option(32, minimum=1, help="examples per step")
    local_epochs: int = option(1, minimum=1, help="passes over the client's examples")
    local_steps: int = option(0, minimum=0, help="if above 0, this many batches in place of local-epochs")
    l1: float = option(0.0, minimum=0, help="weight of the sum of magnitudes in the loss")
    weight_decay: float = option(0.0, minimum=0, help="L2 decay: decoupled in adamw, part of the gradient elsewhere")
    clip_norm: float = option(0.0, minimum=0, help="if above 0, gradients are scaled down to this norm")
    proximal_mu: float = option(
        0.0, minimum=0, help="FedProx: weight of half the squared distance from the round's model"
    )
    subspace: float = option(
        0.0, minimum=0, below=1, help="if above 0, train in random subspaces of this share of each tensor's dimensions"
    )

    def check(self) -> None:
        if self.momentum and self.optimizer != "sgd":
            raise SettingError(f"momentum must be 0 with {self.optimizer}, got {self.momentum}")
        if self.nesterov and not self.momentum:
            raise SettingError(f"momentum must be above 0 with nesterov, got {self.momentum}")
        if self.subspace and self.weight_decay:
            raise SettingError(f"weight-decay must be 0 with subspace, which it leaves, got {self.weight_decay}")
