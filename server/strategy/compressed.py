"""The strategy wrapper: `Compressed(FedAvg(), up=..., down=...)` makes any Flower strategy speak in frames."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedpress.common.errors import FedpressError, SettingError
from fedpress.common.logs import LOGGER
from fedpress.common.rng import derive
from fedpress.common.settings import require
from fedpress.compression import FrameError, Layout, Update, parse
from fedpress.protocol.messages import LOSSLESS
from fedpress.server.aggregation import privacy
from fedpress.server.aggregation.aggregate import Outcome, aggregate, cast, model_record
from fedpress.server.aggregation.client_update import Bounds, Vote, refuse
from fedpress.server.aggregation.consistency import alike, judged, weighted_by
from fedpress.server.checkpointing.recovery import Recovery
from fedpress.server.downlink.downlink import Downlink, Tune, parse_down
from fedpress.server.downlink.model_store import Versions
from fedpress.server.downlink.models import Models, One
from fedpress.server.downlink.personal_layers import Personal
from fedpress.server.heterogeneous.model_groups import Fleet, Grouped
from fedpress.server.messaging.exchange import Delivery, Exchange
from fedpress.server.messaging.ledger import Ledger
from fedpress.server.messaging.named_grid import NamedGrid, seed_samplers
from fedpress.server.messaging.node_evaluation import Distil, Facts, Part, TakesPart, ask_nodes
from fedpress.server.messaging.node_state import Peers
from fedpress.server.rate_control.controller import Rate
from fedpress.server.rate_control.policies import Fixed, Policy, describe
from fedpress.server.sparse.mask_updates import Sparsifier
from fedpress.server.strategy.compatibility import check
from fedpress.server.strategy.flower_strategies import has_trees
from fedpress.server.strategy.round_record import Counted, Round

_log = logging.getLogger(LOGGER)

Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]
Finish = Callable[[int, Exchange, float], None]  # called after the last round, with its number and the timeout
ATTEMPTS = 3  # how often a round is tried before the run gives up


class Compressed(Strategy):
    """A Flower strategy around another: the outermost, so that whatever is inside sees plain models.

    The inner strategy is given the exact model w and receives replies w + delta; nodes hold models that follow w by
    delta frames. `start` runs the rounds itself: asks nodes who they are, sends each the frames it lacks, asks again
    where a node lost its base, repeats a round that too few replies survived, and counts every byte.

    Parameters
    ----------
    strategy : the inner Flower strategy
    up : spec of the codec of updates, or a policy that picks one for each node; "none" sends float32
    down : spec of the codec of the model's deltas; "none" sends the whole model, float32, every time
    key : spec of the codec of matrices in whole models, for nodes that have none yet; without deltas only if stateless
    seed : of everything random but private noise; also seeds `random` and `numpy.random`, which flwr's strategies use
    shared_initial : nodes have the initial model, from `compress(initial=...)`, and need no key frame
    stateless : nodes keep nothing between rounds: for federations in which a device may be seen once
    catch_up : how many times coarser than the newest delta those are that nodes get which missed some
    exclude : patterns of names (`fnmatch`) of tensors whose changes nodes keep to themselves
    personal : patterns of names, or "head" or "norm": tensors that stay on each node, which goes on from its own
    min_replies : a round with fewer replies that count is repeated, twice at most
    max_norm : an update of a larger L2 norm is refused
    max_examples : a reply that claims to weigh more is refused
    held_bytes : how much of the disk the models that nodes hold may take; beyond it nodes get key frames
    checkpoint : folder in which every round is saved, so that a run that was killed can go on
    resume : go on from the newest checkpoint, if there is one
    sparsify : marks the weights of the model that are dead from a round on; they are zero on nodes, and do not travel
    distil : called after aggregation with (w, votes, generator); returns the model that replaces w, or w itself. One
        that has a method `part` is made from what that returns, given the round's Part: it can ask nodes what they
        think of a model, and note facts for the record
    tune : called with (w, code, generator) before a delta is sent; returns what to aim it at so that the model that
        nodes get of it does what w does; `code(model)` is the bytes of a delta to a model, and what it leads to
    fleet : nodes have different models, in groups: `fleet.whole` is then the model to start with
    on_round : called with each finished Round, and with round 0 before the first
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        up: str | Policy = "none",
        down: str = "none",
        key: str = "none",
        seed: int = 0,
        shared_initial: bool = False,
        stateless: bool = False,
        catch_up: float = 1.0,
        exclude: Sequence[str] = (),
        personal: Sequence[str] = (),
        min_replies: int = 1,
        max_norm: float = math.inf,
        max_examples: float = 1e9,
        held_bytes: int = 1 << 34,
        checkpoint: Path | None = None,
        resume: bool = False,
        sparsify: Sparsifier | None = None,
        distil: Distil | None = None,
        tune: Tune | None = None,
        fleet: Fleet | None = None,
        on_round: Callable[[Round], None] | None = None,
    ) -> None:
        if isinstance(strategy, Compressed):
            raise SettingError("Compressed wraps a strategy once, got one that is Compressed already")
        check(
            strategy,
            lossless=(str(up), down) == (LOSSLESS, LOSSLESS),
            exclude=exclude,
            personal=personal,
            stateless=stateless,
            down=down,
            catch_up=catch_up,
            distils=distil is not None,
            tunes=tune is not None,
            sparsify=sparsify,
            fleet=fleet,
            loses_nothing_down=down == LOSSLESS or (stateless and not shared_initial),
            keeps=bool(checkpoint or on_round),
        )
        if resume and checkpoint is None:
            raise SettingError("resume goes on from a checkpoint: name its folder")
        require(min_replies >= 1, "min_replies", "at least 1", min_replies)
        require(max_norm > 0, "max_norm", "above 0", max_norm)
        require(max_examples > 0, "max_examples", "above 0", max_examples)
        require(held_bytes >= 0, "held_bytes", "at least 0", held_bytes)
        self.strategy = strategy
        self.up = Fixed(str(parse(up))) if isinstance(up, str) else up
        self.down = parse_down(down)
        self.key = parse_down(key if stateless or str(self.down) != LOSSLESS else LOSSLESS)
        self.seed = seed
        self.min_replies = min_replies
        self.ledger = Ledger()
        self.on_round = on_round
        self.finish: Finish | None = None
        self._shared_initial = shared_initial
        self._stateless = stateless
        self._catch_up = catch_up
        self._exclude = tuple(exclude)
        self._personal = tuple(personal)
        self._bounds = Bounds(max_norm, max_examples)
        self._held_bytes = held_bytes
        self._checkpoint = checkpoint
        self._resume = resume
        self._terms = {
            "strategy": type(strategy).__name__,
            "up": describe(self.up),
            "down": down,
            "key": key,
            "seed": seed,
            "shared_initial": shared_initial,
            "stateless": stateless,
            "catch_up": catch_up,
            "exclude": list(exclude),
            "personal": list(personal),
            "sparsify": repr(sparsify),
            "distil": distil is not None,
            "tune": tune is not None,
            "groups": list(fleet.names) if fleet else [],
        }
        self._distil = distil
        self._tune = tune
        self._fleet = fleet
        self._sparsify = sparsify
        self._rate = Rate(self.up, strategy, stateless=stateless)
        self._running = False

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
        if has_trees(self.strategy):
            name = type(self.strategy).__name__
            _log.warning("%s has trees for models: they are passed through, neither compressed nor counted", name)
            return self.strategy.start(
                grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn
            )
        self.summary()
        with self._outermost(), TemporaryDirectory(prefix="fedpress-versions-") as folder:
            recovery = self._recovery()
            exchange = self._exchange(grid, initial_arrays, timeout, recovery.versions if recovery else Path(folder))
            result = Result(arrays=initial_arrays)
            done = recovery.resume(exchange, result) if recovery and self._resume else None
            for number in range(0 if done is None else done + 1, num_rounds + 1):
                began = time.monotonic()
                outcome, asked, distilled, evaluation = Outcome({}, None, []), 0, False, None
                facts: Facts = {}
                each: dict[str, MetricRecord] = {}
                judging = evaluate_config or ConfigRecord()
                if number > 0:
                    outcome, asked = self._train(number, exchange, timeout, train_config or ConfigRecord())
                    ask = partial(
                        ask_nodes, outcome.votes, number, exchange, self.strategy, self._bounds, timeout, judging
                    )
                    part = Part(ask, facts.update, exchange.models.exact if number > 1 else None)
                    distilled = self._advance(number, outcome, exchange, part)
                    evaluation, each = self._evaluate(number, exchange, timeout, judging)
                    _note(result.train_metrics_clientapp, number, outcome.metrics)
                    _note(result.evaluate_metrics_clientapp, number, evaluation)
                model = exchange.personal.whole(exchange.models.model)
                central = evaluate_fn(number, model_record(model)) if evaluate_fn else None
                _note(result.evaluate_metrics_serverapp, number, central)
                if self.on_round is not None:
                    counted = {vote.node: Counted(str(vote.codec), vote.weight, vote.work) for vote in outcome.votes}
                    failures, seconds = asked - len(counted), time.monotonic() - began
                    groups = {name: d.model for name, d in exchange.models.downlinks.items() if self._fleet}
                    self.on_round(
                        Round(
                            number,
                            model,
                            central,
                            evaluation,
                            failures,
                            seconds,
                            counted,
                            distilled,
                            each,
                            groups,
                            facts,
                        )
                    )
                exchange.forget(recovery.needed if recovery else set())
                if recovery:
                    recovery.save(number, exchange, result)
            if self.finish is not None:
                self.finish(num_rounds, exchange, timeout)
            result.arrays = model_record(exchange.personal.whole(exchange.models.model))
            return result

    def _recovery(self) -> Recovery | None:
        if self._checkpoint is None:
            return None
        return Recovery(self._checkpoint, self.strategy, self._terms, resume=self._resume)

    @contextmanager
    def _outermost(self) -> Iterator[None]:
        self._running = True
        try:
            yield
        finally:
            self._running = False

    def _advance(self, number: int, outcome: Outcome, exchange: Exchange, part: Part) -> bool:
        """Go on to the model that follows a round's outcome; return whether distillation had a better one."""
        models = exchange.models
        exact = cast(outcome.model, models.layout) if outcome.model else models.exact
        taught = exact
        if self._distil is not None and outcome.votes:
            distil = self._distil.part(part) if isinstance(self._distil, TakesPart) else self._distil
            taught = distil(exact, outcome.votes, derive(self.seed, "distil", number))
        wanted = cast(taught, models.layout)
        if self._sparsify is not None:
            wanted = self._sparsify(number, wanted, models.exact)
        models.advance(wanted, number)
        return taught is not exact

    def _exchange(self, grid: Grid, initial_arrays: ArrayRecord, timeout: float, folder: Path) -> Exchange:
        def make(group: str, model: Update) -> Downlink:
            layout, place = Layout.of(model), folder / group
            excluded[layout] = self.excluded(layout)
            place.mkdir(exist_ok=True)
            return Downlink(
                self.down,
                self.key,
                model,
                self.seed,
                Versions(layout, place, self._held_bytes // groups),
                shared_initial=self._shared_initial,
                stateless=self._stateless,
                catch_up=self._catch_up,
                tune=self._tune,
                sparse=self._sparsify is not None,
            )

        excluded: dict[Layout, bytes] = {}
        groups = len(self._fleet.names) if self._fleet else 1
        whole = {name: array.numpy() for name, array in initial_arrays.items()}
        personal = self.personal(whole)
        initial = personal.shared(whole)
        models: Models = Grouped(self._fleet, make) if self._fleet else One(make("", initial))
        join = self._fleet.join if self._fleet and not self._fleet.groups.dealt else None
        needed = max(getattr(self.strategy, "min_available_nodes", 0), getattr(self.strategy, "min_train_nodes", 0))
        named = NamedGrid(grid, timeout, self.ledger, join, needed=needed)
        return Exchange(named, models, self.ledger, Peers(), personal=personal, exclude=excluded, seed=self.seed)

    def personal(self, initial: Mapping[str, np.ndarray]) -> Personal:
        """Return what of the model that a run begins with stays on the nodes; SettingError if that is all of it."""
        if not initial:
            raise SettingError("the model has no tensors: initial_arrays is empty")
        return Personal.of(initial, self._personal)

    def excluded(self, layout: Layout) -> bytes:
        """Return the mask of the tensors whose changes are not sent, empty for none; SettingError if that is all."""
        names = [t.name for t in layout.tensors if any(fnmatchcase(t.name, p) for p in self._exclude)]
        if len(names) == len(layout.tensors):
            raise SettingError(f"exclude leaves some tensors to be sent, got {', '.join(self._exclude)}")
        return layout.mask(names) if names else b""

    def summary(self) -> None:
        _log.info("Compressed: up %s, down %s", self.up, self.down)
        self.strategy.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if not self._running:
            raise SettingError("Compressed is the outermost strategy, Compressed(Other(...)): Other runs it otherwise")
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

    def _train(self, number: int, exchange: Exchange, timeout: float, config: ConfigRecord) -> tuple[Outcome, int]:
        """Train a round; return what came of it, and how many messages were sent for it."""
        asked, trouble = 0, ""
        exact = exchange.models.exact
        for attempt in range(ATTEMPTS):
            seed_samplers(exchange.grid, self.seed, "train", number, attempt)
            messages = list(self.configure_train(number, model_record(exact), config, exchange.grid))
            delivery = exchange.deliver(number, messages, timeout, self._rate.chooser(number, exchange))
            if not delivery.asked:  # the strategy trains nobody this round
                return Outcome(exact, None, []), asked
            asked += len(delivery.asked)
            votes = self._votes(number, delivery, exchange)
            trouble = delivery.trouble or trouble
            # Nothing of the inner strategy has changed up to here, so the round can be repeated.
            if privacy.is_private(self.strategy):
                privacy.draw_noise_from_the_system()
            asked_one = next(iter(delivery.asked.values())).message
            outcome = aggregate(self.strategy, number, votes, asked_one, self.min_replies, exact)
            if outcome is not None:
                for vote in outcome.votes:
                    exchange.accept(vote)
                return outcome, asked
            _log.warning("round %d: fewer than %d of %d replies count", number, self.min_replies, len(delivery.asked))
        last = f"; the last: {trouble}" if trouble else ""
        raise FedpressError(f"round {number}: fewer than {self.min_replies} replies counted, {ATTEMPTS} times{last}")

    def _votes(self, number: int, delivery: Delivery, exchange: Exchange) -> list[Vote]:
        bounds = replace(self._bounds, clip=privacy.bound(self.strategy))
        votes = []
        for reply in delivery.replies:
            try:
                votes.append(reply.vote(exchange.models, weighted_by(self.strategy), bounds))
            except FrameError as error:
                refuse(number, reply.node, error)
                delivery.trouble = f"node {reply.node}: {error}"
        return alike(number, self.strategy, votes)

    def _evaluate(
        self, number: int, exchange: Exchange, timeout: float, config: ConfigRecord
    ) -> tuple[MetricRecord | None, dict[str, MetricRecord]]:
        """Let nodes evaluate the model that they were sent, v; return what they say together, and each of them."""
        arrays = model_record(exchange.models.model)
        seed_samplers(exchange.grid, self.seed, "evaluate", number)
        messages = list(self.configure_evaluate(number, arrays, config, exchange.grid))
        delivery = exchange.deliver(number, messages, timeout, lambda *_: parse(LOSSLESS))
        said = [(reply.node, reply.message) for reply in delivery.replies]
        replies = judged(number, self.strategy, said, self._bounds)
        good = set(map(id, replies))
        each = {
            reply.node: next(iter(reply.message.content.metric_records.values()))
            for reply in delivery.replies
            if id(reply.message) in good and reply.message.content.metric_records
        }
        return (self.aggregate_evaluate(number, replies) if delivery.asked else None), each


def _note(history: dict[int, MetricRecord], number: int, metrics: MetricRecord | None) -> None:
    if metrics is not None:
        history[number] = metrics
