"""A strategy."""

from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg


class Damped(FedAvg):
    """FedAvg that goes only a part of the way to the mean of the replies."""

    def __init__(self, way: float = 0.5, **sampling: Any) -> None:
        super().__init__(**sampling)
        self.way = way
        self.before = ArrayRecord()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.before = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None:
            return mean, metrics
        before = self.before.to_numpy_ndarrays()
        after = [old + self.way * (new - old) for old, new in zip(before, mean.to_numpy_ndarrays(), strict=True)]
        return ArrayRecord(dict(zip(mean, ArrayRecord(after).values(), strict=True))), metrics
