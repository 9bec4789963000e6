"""The strategy wrapper: `Compressed(FedAvg(), up=..., down=...)` makes any Flower strategy speak in frames."""

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedpress.compression import FrameError, Update, parse
from fedpress.compression.errors import FedpressError, SettingError
from fedpress.compression.ledger import Ledger
from fedpress.compression.message import KEY
from fedpress.compression.rng import derive
from fedpress.server.aggregate import Outcome, Vote, aggregate, cast, model_record, read_vote, refuse
from fedpress.server.downlink import Downlink, parse_down
from fedpress.server.exchange import Delivery, Exchange
from fedpress.server.nodes import NamedGrid

_log = logging.getLogger(KEY)

Distil = Callable[[Update, Sequence[Vote], np.random.Generator], Update]
Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]
ATTEMPTS = 3  # how often a round is tried before the run gives up


@dataclass(frozen=True)
class Round:
    """What happened in a round, for whoever keeps the record."""

    number: int  # 0 is the model before the first round
    model: Update  # v, as nodes can reconstruct it
    evaluation: MetricRecord | None  # what `evaluate_fn` said of it
    clients: int  # replies that counted
    failures: int  # replies that were refused, errors, or never came
    seconds: float


class Compressed(Strategy):
    """A Flower strategy around another: the outermost, so that whatever is inside sees plain models.

    The inner strategy is given the exact model w and receives replies w + delta; nodes hold v, which follows w by
    delta frames. `start` runs the rounds itself: asks nodes who they are, sends each the frames it lacks, asks again
    where a node lost its base, repeats a round that too few replies survived, and counts every byte.

    Parameters
    ----------
    strategy : the inner Flower strategy
    up, down : specs of the codecs of updates and of the model's deltas; "none" sends float32
    seed : of everything random but private noise; also seeds `random` and `numpy.random`, which flwr's strategies use
    min_replies : a round with fewer replies that count is repeated, twice at most
    distil : called after aggregation with (w, votes, generator); returns the model that replaces w
    on_round : called with each finished Round, and with round 0 before the first
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        up: str = "none",
        down: str = "none",
        seed: int = 0,
        min_replies: int = 1,
        distil: Distil | None = None,
        on_round: Callable[[Round], None] | None = None,
    ) -> None:
        if isinstance(strategy, Compressed):
            raise SettingError("Compressed wraps a strategy once, got one that is Compressed already")
        if min_replies < 1:
            raise SettingError(f"min_replies is at least 1, got {min_replies}")
        self.strategy = strategy
        self.up = parse(up)
        self.down = parse_down(down)
        self.seed = seed
        self.min_replies = min_replies
        self.ledger = Ledger()
        self._distil = distil
        self.on_round = on_round

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Evaluate | None = None,
    ) -> Result:
        self.summary()
        exact = {name: array.numpy() for name, array in initial_arrays.items()}  # w
        downlink = Downlink(self.down, exact, self.seed)
        exchange = Exchange(NamedGrid(grid, timeout), downlink, self.up, self.ledger, self.seed)
        result = Result(arrays=initial_arrays)
        for number in range(num_rounds + 1):
            began = time.monotonic()
            votes: list[Vote] = []
            asked = 0
            if number > 0:
                outcome, asked = self._train(number, exact, exchange, timeout, train_config or ConfigRecord())
                votes = outcome.votes
                exact = cast(outcome.model, downlink.layout) if outcome.model else exact
                if self._distil is not None and votes:
                    exact = cast(self._distil(exact, votes, derive(self.seed, "distil", number)), downlink.layout)
                downlink.advance(exact, number)
                result.arrays = model_record(downlink.model)
                evaluation = self._evaluate(number, exchange, timeout, evaluate_config or ConfigRecord())
                _note(result.train_metrics_clientapp, number, outcome.metrics)
                _note(result.evaluate_metrics_clientapp, number, evaluation)
            central = evaluate_fn(number, result.arrays) if evaluate_fn else None
            _note(result.evaluate_metrics_serverapp, number, central)
            if self.on_round is not None:
                seconds = time.monotonic() - began
                self.on_round(Round(number, downlink.model, central, len(votes), asked - len(votes), seconds))
        return result

    def summary(self) -> None:
        _log.info("Compressed: up %s, down %s", self.up, self.down)
        self.strategy.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        return self.strategy.aggregate_train(server_round, replies)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self.strategy.aggregate_evaluate(server_round, replies)

    def _train(
        self, number: int, exact: Update, exchange: Exchange, timeout: float, config: ConfigRecord
    ) -> tuple[Outcome, int]:
        """Train a round; return what came of it, and how many messages were sent for it."""
        asked = 0
        for attempt in range(ATTEMPTS):
            _seed_globals(exchange.grid, self.seed, "train", number, attempt)
            messages = list(self.configure_train(number, model_record(exact), config, exchange.grid))
            delivery = exchange.deliver(number, messages, timeout)
            if not delivery.asked:  # the strategy trains nobody this round
                return Outcome(exact, None, []), asked
            asked += len(delivery.asked)
            votes = self._votes(number, delivery, exact, exchange)
            # Nothing of the inner strategy has changed up to here, so the round can be repeated.
            outcome = aggregate(self.strategy, number, votes, next(iter(delivery.asked.values())), self.min_replies)
            if outcome is not None:
                for vote in outcome.votes:
                    exchange.accept(vote.node, vote.frame)
                return outcome, asked
            _log.warning("round %d: fewer than %d of %d replies count", number, self.min_replies, len(delivery.asked))
        raise FedpressError(f"round {number}: fewer than {self.min_replies} replies counted, {ATTEMPTS} times")

    def _votes(self, number: int, delivery: Delivery, exact: Update, exchange: Exchange) -> list[Vote]:
        weighted_by = getattr(self.strategy, "weighted_by_key", "num-examples")
        downlink = exchange.downlink
        votes = []
        for reply in delivery.replies:
            node = exchange.grid.name(reply.metadata.src_node_id)
            try:
                votes.append(read_vote(reply, node, weighted_by, exact, downlink.layout, self.up, downlink.version))
            except FrameError as error:
                refuse(number, node, error)
        return votes

    def _evaluate(self, number: int, exchange: Exchange, timeout: float, config: ConfigRecord) -> MetricRecord | None:
        """Let nodes evaluate the model that they were sent, v."""
        arrays = model_record(exchange.downlink.model)
        _seed_globals(exchange.grid, self.seed, "evaluate", number)
        messages = list(self.configure_evaluate(number, arrays, config, exchange.grid))
        delivery = exchange.deliver(number, messages, timeout)
        return self.aggregate_evaluate(number, delivery.replies) if delivery.asked else None


def _seed_globals(grid: NamedGrid, seed: int, *path: str | int) -> None:
    """Seed the generators that flwr's strategies sample with, so that the same nodes are chosen on every engine.

    Strangers are asked who they are first: that takes time, in which an engine's threads draw from the same generators.
    """
    list(grid.get_node_ids())
    random.seed(int(derive(seed, *path).integers(2**63)))
    np.random.seed(int(derive(seed, "numpy", *path).integers(2**32)))  # noqa: NPY002


def _note(history: dict[int, MetricRecord], number: int, metrics: MetricRecord | None) -> None:
    if metrics is not None:
        history[number] = metrics
