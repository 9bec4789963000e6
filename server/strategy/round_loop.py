"""The rounds of a federation, each read from top to bottom: train, extend, advance, evaluate, record, checkpoint."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp.strategy import Result, Strategy

from fedpress.common.errors import DivergedError, FedpressError
from fedpress.common.logs import LOGGER
from fedpress.common.settings import is_integer, is_number, require
from fedpress.compression import FrameError, Update, parse
from fedpress.protocol.arrays import model_record
from fedpress.protocol.messages import LOSSLESS
from fedpress.server.aggregation import privacy
from fedpress.server.aggregation.aggregate import AggregationResult, aggregate, cast
from fedpress.server.aggregation.client_update import ClientUpdate, FederationLimits, log_refusal
from fedpress.server.aggregation.consistency import consistent_updates, valid_evaluations, weighted_by
from fedpress.server.aggregation.contribution_bounds import ContributionBounds
from fedpress.server.checkpointing.recovery import Recovery
from fedpress.server.extension import FinalContext, RoundContext
from fedpress.server.messaging.exchange import Delivery, Exchange
from fedpress.server.messaging.named_grid import seeded_samplers
from fedpress.server.messaging.node_evaluation import NodeEvaluation
from fedpress.server.rate_control.controller import RateController
from fedpress.server.strategy.extension_chain import ExtensionChain
from fedpress.server.strategy.round_record import CountedReply, Round
from fedpress.server.strategy.selection import select

_log = logging.getLogger(LOGGER)

ATTEMPTS = 3  # at a round, before the run fails if no other node can come
_MAX_PAUSE = 300.0  # seconds between two attempts; the first pause is of one second, and each is twice the last

EvaluateFunction = Callable[[int, ArrayRecord], MetricRecord | None]


@dataclass(frozen=True)
class RoundSettings:
    """The arguments of `Compressed.start`."""

    rounds: int
    timeout: float  # seconds to wait for a round's replies
    train_config: ConfigRecord  # sent with every training message
    evaluate_config: ConfigRecord  # sent with every evaluation message
    evaluate: EvaluateFunction | None  # the server's own evaluation of the model

    def __post_init__(self) -> None:
        rounds, timeout = self.rounds, self.timeout
        require(is_integer(rounds) and rounds >= 0, "num_rounds", "an integer of at least 0", rounds)
        require(is_number(timeout) and timeout > 0, "timeout", "above 0 seconds", timeout)
        for name, config in (("train_config", self.train_config), ("evaluate_config", self.evaluate_config)):
            require(isinstance(config, ConfigRecord), name, "a ConfigRecord", config)
        require(self.evaluate is None or callable(self.evaluate), "evaluate_fn", "a function", self.evaluate)


@dataclass(frozen=True)
class TrainingResult:
    """The result of a round's training."""

    outcome: AggregationResult
    requests: int = 0  # messages that were sent for it, those of repetitions included


@dataclass(frozen=True)
class EvaluationResult:
    """The nodes' evaluation of a round's model."""

    metrics: MetricRecord | None = None  # as the strategy aggregates them
    by_node: dict[str, MetricRecord] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundLoop:
    """Runs the rounds of one federation."""

    outer: Strategy  # configures each round's messages, and aggregates evaluations
    strategy: Strategy  # the inner one, which aggregates updates
    exchange: Exchange
    extensions: ExtensionChain
    rate: RateController
    bounds: ContributionBounds
    limits: FederationLimits
    seed: int
    settings: RoundSettings
    recovery: Recovery | None
    observers: Sequence[Callable[[Round], None]]  # are called with each finished round

    def run(self, result: Result) -> None:
        """Run all rounds, or those after the newest checkpoint; round 0 evaluates the initial model."""
        done = self.recovery.resume(self.exchange, self.extensions, result) if self.recovery else None
        for number in range(0 if done is None else done + 1, self.settings.rounds + 1):
            began = time.monotonic()
            trained, evaluated = TrainingResult(AggregationResult()), EvaluationResult()
            if number > 0:
                trained = self._train(number)
                self._advance(number, trained.outcome)
                evaluated = self._evaluate(number)
            self._record(number, trained, evaluated, began, result)
            self.exchange.forget(self.recovery.needed if self.recovery else set())
            self._save(number, result)

    def finish(self, result: Result) -> dict[str, Any]:
        """Run the extensions' work after the last round; return the entries that they add to the final scores."""
        last = self.settings.rounds
        facts = self.extensions.after_last_round(FinalContext(last, self.exchange, self.settings.timeout))
        if facts:  # a resumed run does not repeat this work
            self._save(last, result)
        result.arrays = model_record(self.extensions.complete(self.exchange.models.model))
        return facts

    def _train(self, number: int) -> TrainingResult:
        """Train a round; repeat it, with other nodes, if too few replies count.

        The inner strategy's state changes only when replies are aggregated, so a round can be repeated.
        """
        requests, trouble, exact, failed = 0, "", self.exchange.models.exact, set[int]()
        attempt = 0
        while True:
            messages = self._configure(number, attempt, exact, failed)
            choose = self.rate.chooser(number, self.exchange)
            delivery = self.exchange.deliver(number, messages, self.settings.timeout, choose)
            if not delivery.requests:  # the strategy trains nobody this round
                return TrainingResult(AggregationResult(exact), requests)
            requests += len(delivery.requests)
            updates = self._updates(number, delivery)
            trouble = delivery.refusal or trouble
            request = next(iter(delivery.requests.values())).message
            with privacy.noise_from_system() if privacy.is_private(self.strategy) else nullcontext():
                outcome = aggregate(
                    self.strategy,
                    number,
                    updates,
                    request=request,
                    least=self.limits.min_replies,
                    exact=exact,
                    bounds=self.bounds,
                )
            if outcome is not None:
                for update in outcome.updates:
                    self.exchange.accept(update)
                self.rate.observe(outcome.energy)
                return TrainingResult(outcome, requests)
            if delivery.diverged and not updates and self._is_conclusive(delivery, attempt):
                raise DivergedError(f"round {number}: {delivery.refusal}: a lower learning rate, or clipping, may help")
            privacy.abandon(self.strategy, number)
            failed |= delivery.requests.keys() - {reply.message.metadata.src_node_id for reply in delivery.replies}
            self._pause(number, attempt, trouble)
            attempt += 1

    def _configure(self, number: int, attempt: int, exact: Update, failed: set[int]) -> list[Message]:
        """Return the messages of an attempt at a round: nodes that failed or did not answer are asked last."""
        grid, config = self.exchange.grid, self.settings.train_config
        resting, factor = self.exchange.resting(number) | failed, self.limits.over_selection
        with seeded_samplers(grid, self.seed, "train", number, attempt):
            messages = list(self.outer.configure_train(number, model_record(exact), config, grid))
            return select(messages, list(grid.get_node_ids()), resting, factor) if resting or factor > 1 else messages

    def _is_conclusive(self, delivery: Delivery, attempt: int) -> bool:
        """Return whether training diverges, and not only that of a few nodes: no node ends a deployed run alone."""
        if not self.exchange.grid.waits:
            return True
        return delivery.diverged == len(delivery.requests) and attempt + 1 >= ATTEMPTS

    def _pause(self, number: int, attempt: int, trouble: str) -> None:
        """Wait before the next attempt; raise FedpressError after the last, where no other node can come."""
        least, last = self.limits.min_replies, f"; the last: {trouble}" if trouble else ""
        if not self.exchange.grid.waits:
            if attempt + 1 == ATTEMPTS:
                raise FedpressError(f"round {number}: fewer than {least} replies counted, {ATTEMPTS} times{last}")
            _log.warning("round %d: fewer than %d replies count%s", number, least, last)
            return
        seconds = min(_MAX_PAUSE, 2.0 ** min(attempt, 10))
        _log.warning(
            "round %d is abandoned: fewer than %d replies count%s; it is repeated in %g seconds",
            *(number, least, last, seconds),
        )
        time.sleep(seconds)

    def _updates(self, number: int, delivery: Delivery) -> list[ClientUpdate]:
        """Return the valid replies; log the others."""
        key, clip_norm = weighted_by(self.strategy), min(self.limits.max_norm, privacy.bound(self.strategy))
        updates = []
        for reply in delivery.replies:
            try:
                updates.append(reply.update(self.exchange.models, key, clip_norm))
            except FrameError as error:
                delivery.refusal = log_refusal(number, reply.node, error)
        return consistent_updates(number, self.strategy, updates)

    def _advance(self, number: int, outcome: AggregationResult) -> None:
        """Advance to the model that extensions make of the aggregated one."""
        models = self.exchange.models
        context = RoundContext(
            number=number,
            seed=self.seed,
            previous=models.exact,
            updates=outcome.updates,
            models=models,
            ask=NodeEvaluation(
                number=number,
                updates=outcome.updates,
                exchange=self.exchange,
                strategy=self.strategy,
                limits=self.limits,
                timeout=self.settings.timeout,
                config=self.settings.evaluate_config,
            ),
        )
        model = cast(outcome.model, models.layout) if outcome.model else models.exact
        _check_finite(number, model)
        models.advance(self.extensions.after_aggregation(model, context), number)

    def _evaluate(self, number: int) -> EvaluationResult:
        """Return the nodes' evaluation of the model that they hold, v."""
        arrays, grid = model_record(self.exchange.models.model), self.exchange.grid
        with seeded_samplers(grid, self.seed, "evaluate", number):
            messages = list(self.outer.configure_evaluate(number, arrays, self.settings.evaluate_config, grid))
        delivery = self.exchange.deliver(number, messages, self.settings.timeout, lambda *_: parse(LOSSLESS))
        replies = [(reply.node, reply.message) for reply in delivery.replies]
        valid = valid_evaluations(number, self.strategy, replies, self.limits)
        counted = set(map(id, valid))
        by_node = {
            node: next(iter(message.content.metric_records.values()))
            for node, message in replies
            if id(message) in counted and message.content.metric_records
        }
        return EvaluationResult(self.outer.aggregate_evaluate(number, valid) if delivery.requests else None, by_node)

    def _record(
        self, number: int, trained: TrainingResult, evaluated: EvaluationResult, began: float, result: Result
    ) -> None:
        """Add a round to Flower's result, and call the observers."""
        model = self.extensions.complete(self.exchange.models.model)
        evaluate, outcome = self.settings.evaluate, trained.outcome
        central = evaluate(number, model_record(model)) if evaluate else None
        _note(result.train_metrics_clientapp, number, outcome.metrics)
        _note(result.evaluate_metrics_clientapp, number, evaluated.metrics)
        _note(result.evaluate_metrics_serverapp, number, central)
        if not self.observers:
            return
        done = Round(
            number=number,
            model=model,
            evaluation=central,
            evaluated=evaluated.metrics,
            node_evaluations=evaluated.by_node,
            groups=self.exchange.models.by_group,
            counted={
                update.node: _counted(update, norm) for update, norm in zip(outcome.updates, outcome.norms, strict=True)
            },
            failures=trained.requests - len(outcome.updates),
            seconds=time.monotonic() - began,
        )
        facts = {**self.rate.round_facts(done), **self.extensions.round_facts(done)}
        done = replace(done, facts=facts, scores=self.extensions.model_scores(done))
        for observer in self.observers:
            observer(done)

    def _save(self, number: int, result: Result) -> None:
        if self.recovery is not None:
            self.recovery.save(number, self.exchange, self.extensions, result)


def _counted(update: ClientUpdate, norm: float) -> CountedReply:
    metrics = next(iter(update.message.content.metric_records.values()), MetricRecord())
    loss = metrics.get("train_loss")
    known = float(loss) if isinstance(loss, int | float) and math.isfinite(loss) else None
    return CountedReply(
        codec=str(update.encoded.codec),
        claim=update.claim,
        weight=update.weight,
        norm=norm,
        time=update.time,
        train_loss=known,
    )


def _note(history: dict[int, MetricRecord], number: int, metrics: MetricRecord | None) -> None:
    if metrics is not None:
        history[number] = metrics


def _check_finite(number: int, model: Update) -> None:
    """Raise DivergedError if a model has values that are not finite."""
    for name, array in model.items():
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            raise DivergedError(f"round {number}: training diverged: the aggregated tensor {name!r} is not finite")
