"""The configuration that is sent to the app with a model, and the names of what it reports."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from flwr.app import ConfigRecord

from fedpress.common.errors import FrameError
from fedpress.common.settings import key_of

CLASS_COUNTS = "class-counts"  # metric with a node's number of examples of each class


@dataclass(frozen=True)
class AppConfig:
    """The configuration that a strategy sends to the app in a round.

    Examples
    --------
    >>> AppConfig.from_record(AppConfig(server_round=2).to_record()).server_round
    2
    """

    server_round: int  # number of the round
    proximal_mu: float | None = None  # weight of the proximal term, from FedProx; None for that of the settings
    finetune_epochs: int = 0  # passes over the examples by which the model is fine-tuned; 0 for none
    finetune_lr: float = 0.0  # learning rate of the fine-tuning; 0 for that of the settings

    def to_record(self) -> ConfigRecord:
        """Return the fields that are given, by Flower's names."""
        values = {key_of(field.name): getattr(self, field.name) for field in fields(self)}
        return ConfigRecord({name: value for name, value in values.items() if value is not None})

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the configuration in a strategy's record; other keys are ignored.

        Raises
        ------
        FrameError
            If there is no round, or a value is not a number.
        """
        given = {field.name: record[key_of(field.name)] for field in fields(cls) if key_of(field.name) in record}
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise FrameError(f"{key_of(name)} must be a number, got {value!r}")
        if "server_round" not in given:
            raise FrameError("the app's configuration must have server-round")
        return cls(**given)
