"""The strategy wrapper: `Compressed(FedAvg(), up=..., down=...)` sends any Flower strategy's models as frames."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvgM, Result, Strategy

from fedpress.common.errors import SettingError
from fedpress.common.logs import LOGGER
from fedpress.common.settings import is_integer, require
from fedpress.compression import Layout, Update, parse_stateless
from fedpress.protocol.messages import LOSSLESS
from fedpress.server.aggregation import privacy
from fedpress.server.aggregation.client_update import FederationLimits
from fedpress.server.aggregation.consistency import innermost, model_key
from fedpress.server.aggregation.contribution_bounds import ContributionBounds
from fedpress.server.checkpointing.recovery import Recovery, Stateful
from fedpress.server.downlink.deltas import DeltaDownlink
from fedpress.server.downlink.downlink import Downlink
from fedpress.server.downlink.model_store import ModelStore
from fedpress.server.downlink.models import GroupedModels, Models, SingleModel
from fedpress.server.downlink.steps import StepDownlink
from fedpress.server.extension import Extension, FederationTerms, Property
from fedpress.server.messaging.exchange import Exchange
from fedpress.server.messaging.ledger import Ledger
from fedpress.server.messaging.named_grid import NamedGrid
from fedpress.server.messaging.node_state import NodeRecords
from fedpress.server.rate_control.bias import warn_of_biased_steps, warn_of_model_error
from fedpress.server.rate_control.controller import RateController
from fedpress.server.rate_control.policies import TOLERATED, Automatic, Fixed, Policy, build_policy, describe
from fedpress.server.strategy.conflicts import check_extensions
from fedpress.server.strategy.extension_chain import ExtensionChain
from fedpress.server.strategy.flower_strategies import check_strategy, has_trees, nodes_needed
from fedpress.server.strategy.round_loop import EvaluateFunction, RoundLoop, RoundSettings
from fedpress.server.strategy.round_record import Round
from fedpress.settings.codecs import AUTO, DELTAS, STEPS, down_codec
from fedpress.settings.server import PolicySettings

_log = logging.getLogger(LOGGER)
_LIMITS = FederationLimits()

Observer = Callable[[Round], None]


class Compressed(Strategy):
    """A Flower strategy that runs the rounds of another one with compressed models and updates.

    The inner strategy works on plain models: it is given the exact model w and replies w + delta, while nodes hold
    models that follow w by delta frames. `start` runs the rounds: it queries the names of nodes, sends each the frames
    that it lacks, repeats a request to a node that lost its base and a round in which too few replies count, and counts
    all bytes. It must be the outermost strategy.

    Parameters
    ----------
    strategy : Strategy
        The inner Flower strategy.
    up : str | Policy
        Spec of the codec of updates, or a policy that chooses one for each node; "auto" sends them without bias, with
        noise that is set by what the updates of a round have in common; "none" sends float32.
    down : str
        Spec of the codec of deltas of the model, or of steps; "auto" is `even(0.5) | lowrank(nmse=0.3) | ans` for
        deltas and `crosspolytope(noise=4.0)` for steps; "none" sends the whole model, float32, every time.
    key : str
        Spec of the codec of matrices in whole models, for nodes without a base; unused if `down` is "none", unless
        `stateless`.
    broadcast : str
        "deltas" sends each node a delta from the model that it holds; "steps" the steps of the rounds that it missed,
        which the server's own model takes as they are decoded, and whose codec has to be unbiased. Steps take fewer
        bytes and less time where most nodes take part in most rounds.
    seed : int
        Seed of all randomness except private noise, also of `random` and `numpy.random`, which flwr's strategies use.
    shared_initial : bool
        Whether nodes have the initial model, from `compress(initial=...)`, and need no key frame.
    stateless : bool
        Whether nodes keep nothing between rounds, for federations in which a device may take part once.
    exclude : sequence of str
        Patterns (`fnmatch`) of the names of tensors whose changes nodes do not send.
    limits : FederationLimits
        Limits of replies, and of the storage for nodes.
    checkpoint : str | Path | None
        Folder in which every round is saved, so that an interrupted run can be resumed; None not to save.
    resume : bool
        Whether to continue from the newest checkpoint in that folder, if there is one.
    extensions : sequence of Extension
        Features that join the rounds, in the order in which they run.

    Attributes
    ----------
    ledger : Ledger
        Bytes by round, node and direction.
    parts : dict of str to Stateful
        Further parts of the program whose state checkpoints include, by name; set before `start`.
    final_facts : Mapping[str, Any]
        Entries that extensions add to the final scores, once `start` has returned.

    Raises
    ------
    SettingError
        If parts of the federation cannot be combined.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = Compressed(FedAvg(), up="qsgd(4) | ans", down="lowrank(nmse=0.3) | ans")
    >>> len(strategy.ledger)
    0
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        up: str | Policy = AUTO,
        down: str = AUTO,
        key: str = "uniform(8) | ans",
        broadcast: str = DELTAS,
        seed: int = 0,
        shared_initial: bool = False,
        stateless: bool = False,
        exclude: Sequence[str] = (),
        limits: FederationLimits = _LIMITS,
        checkpoint: str | Path | None = None,
        resume: bool = False,
        extensions: Sequence[Extension] = (),
    ) -> None:
        check_strategy(strategy)
        if isinstance(strategy, Compressed):
            raise SettingError("strategy must not be Compressed itself")
        if resume and checkpoint is None:
            raise SettingError("resume must go with checkpoint, the folder to continue from")
        require(broadcast in (STEPS, DELTAS), "broadcast", f"{STEPS!r} or {DELTAS!r}", broadcast)
        if isinstance(exclude, str):
            raise SettingError(
                f"exclude must be a sequence of patterns, got the text {exclude!r}: write ({exclude!r},)"
            )
        require(isinstance(up, str | Policy), "up", "the spec of a codec or a Policy", up)
        require(is_integer(seed) and 0 <= seed < 2**63, "seed", "at least 0 and below 2**63", seed)
        for extension in extensions:
            require(isinstance(extension, Extension), "extensions", "instances of Extension", extension)
        self.strategy = strategy
        self.up = build_policy(PolicySettings(), up, tolerated=TOLERATED[broadcast]) if isinstance(up, str) else up
        self.down = down_codec(down, broadcast=broadcast)
        self.broadcast = broadcast
        self.key = parse_stateless(key if stateless or str(self.down) != LOSSLESS else LOSSLESS)
        self.seed = seed
        self.limits = limits
        self.ledger = Ledger()
        self.final_facts: Mapping[str, Any] = {}
        self._bounds = ContributionBounds(limits.norm_multiple, limits.weight_multiple, privacy.is_private(strategy))
        self.parts: dict[str, Stateful] = {"bounds": self._bounds}
        self.extensions = ExtensionChain(extensions)
        self._shared_initial = shared_initial
        self._stateless = stateless
        self._exclude = tuple(exclude)
        self._checkpoint = None if checkpoint is None else Path(checkpoint)
        self._resume = resume
        self._observers: list[Observer] = []
        privacy.check_strategy(strategy)
        self._rate = self.parts["rate"] = RateController(self.up, strategy, stateless=stateless)
        self._running = False
        self._terms = {
            "strategy": type(strategy).__name__,
            "up": describe(self.up),
            "down": down,
            "key": key,
            "broadcast": broadcast,
            "seed": seed,
            "shared_initial": shared_initial,
            "stateless": stateless,
            "exclude": list(exclude),
            "extensions": [[extension.name, repr(extension.settings)] for extension in extensions],
        }
        if has_trees(strategy):
            self._check_trees()
        self._check_steps(extensions)
        check_extensions(extensions, FederationTerms(strategy, self.down, shared_initial, stateless, self._lacks()))

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFunction | None = None,
    ) -> Result:
        if has_trees(self.strategy):
            name = type(self.strategy).__name__
            _log.warning("the models of %s are trees: they are passed through, neither compressed nor counted", name)
            return self.strategy.start(
                grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn
            )
        if not isinstance(initial_arrays, ArrayRecord):
            raise SettingError(f"initial_arrays must be an ArrayRecord, got {type(initial_arrays).__name__}")
        if not initial_arrays:
            raise SettingError("initial_arrays must not be empty: the model has no tensors")
        self.summary()
        if self.broadcast == DELTAS:
            warn_of_model_error("down", self.down)
        else:
            warn_of_biased_steps(self.down)
        warn_of_model_error("key", self.key)
        train_config, evaluate_config = train_config or ConfigRecord(), evaluate_config or ConfigRecord()
        settings = RoundSettings(num_rounds, timeout, train_config, evaluate_config, evaluate_fn)
        result = Result(arrays=initial_arrays)
        opened: AbstractContextManager[Recovery | None] = nullcontext()
        if self._checkpoint is not None:
            opened = Recovery.open(self._checkpoint, self.strategy, self._terms, self.parts, resume=self._resume)
        with self._outermost(), TemporaryDirectory(prefix="fedpress-models-") as folder, opened as recovery:
            loop = RoundLoop(
                outer=self,
                strategy=self.strategy,
                exchange=self._exchange(grid, initial_arrays, timeout, recovery.models if recovery else Path(folder)),
                extensions=self.extensions,
                rate=self._rate,
                bounds=self._bounds,
                limits=self.limits,
                seed=self.seed,
                settings=settings,
                recovery=recovery,
                observers=self._observers,
            )
            loop.run(result)
            self.final_facts = loop.finish(result)
        return result

    def observe(self, observer: Observer) -> Self:
        """Call `observer` with each finished round, and with round 0 before the first.

        Parameters
        ----------
        observer : callable
            Is given a `Round`. What it raises ends the run.

        Returns
        -------
        Compressed
            The strategy itself.

        Raises
        ------
        SettingError
            If the models of the strategy are trees, whose rounds are Flower's own.

        Examples
        --------
        >>> from flwr.serverapp.strategy import FedAvg
        >>> seen = []
        >>> strategy = Compressed(FedAvg()).observe(seen.append)
        """
        self._observers.append(observer)
        if has_trees(self.strategy):
            self._check_trees()
        return self

    def excluded(self, layout: Layout) -> bytes:
        """Return the mask of the tensors whose changes nodes do not send.

        Parameters
        ----------
        layout : Layout
            Layout of the model.

        Returns
        -------
        bytes
            A bit for each tensor, least significant first; empty for none.

        Raises
        ------
        SettingError
            If all tensors are excluded, or a pattern matches none.

        Examples
        --------
        >>> import numpy as np
        >>> from flwr.serverapp.strategy import FedAvg
        >>> layout = Layout.of({"head.weight": np.zeros(2), "body.weight": np.zeros(3)})
        >>> Compressed(FedAvg(), exclude=["head.*"]).excluded(layout).hex()
        '01'
        """
        for pattern in self._exclude:
            if not any(fnmatchcase(t.name, pattern) for t in layout.tensors):
                raise SettingError(f"exclude must match tensors of the model, got {pattern!r}")
        names = [t.name for t in layout.tensors if any(fnmatchcase(t.name, p) for p in self._exclude)]
        if len(names) == len(layout.tensors):
            raise SettingError(f"exclude must leave some tensors to be sent, got {', '.join(self._exclude)}")
        return layout.mask(names) if names else b""

    def summary(self) -> None:
        _log.info("Compressed: up %s, down %s", self.up, self.down)
        self.strategy.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if not self._running:
            raise SettingError("Compressed must be the outermost strategy: Compressed(Other(...))")
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

    @contextmanager
    def _outermost(self) -> Iterator[None]:
        self._running = True
        try:
            yield
        finally:
            self._running = False

    def _exchange(self, grid: Grid, initial_arrays: ArrayRecord, timeout: float, folder: Path) -> Exchange:
        initial = self.extensions.begin({name: array.numpy() for name, array in initial_arrays.items()})
        groups = self.extensions.model_groups()
        excluded: dict[Layout, bytes] = {}

        def make(group: str, model: Update) -> Downlink:
            layout, place = Layout.of(model), folder / group
            excluded[layout] = self.excluded(layout)
            place.mkdir(exist_ok=True)
            versions = ModelStore(layout, place, self.limits.stored_bytes // (len(groups.names) if groups else 1))
            if self.broadcast == STEPS:
                shared = self._shared_initial
                return StepDownlink(self.down, self.key, model, self.seed, versions, shared_initial=shared)
            return DeltaDownlink(
                self.down,
                self.key,
                model,
                self.seed,
                versions,
                shared_initial=self._shared_initial,
                stateless=self._stateless,
                prunes=self.extensions.prunes,
                hooks=self.extensions,
            )

        models: Models = GroupedModels(groups, initial, make) if groups else SingleModel(make("", initial))
        join = groups.join if groups and groups.asks else None
        named = NamedGrid(grid, timeout, self.ledger, join, needed=nodes_needed(self.strategy))
        return Exchange(
            named,
            models,
            self.ledger,
            NodeRecords(),
            key=model_key(self.strategy),
            extensions=self.extensions.extensions,
            exclude=excluded,
            seed=self.seed,
        )

    def _check_steps(self, extensions: Sequence[Extension]) -> None:
        """Raise SettingError if all nodes cannot follow the same steps."""
        if self.broadcast != STEPS:
            return
        reasons = [one.name for one in extensions if one.removes & {Property.ONE_MODEL, Property.FREE_WEIGHTS}]
        if self._stateless:
            reasons.append("stateless")
        if str(self.down) == LOSSLESS:
            reasons.append(f"down {LOSSLESS!r}")
        if isinstance(innermost(self.strategy), FedAvgM):
            reasons.append("FedAvgM, which keeps a model of its own: it would take the error of a step for an update")
        if reasons:
            raise SettingError(f"broadcast must be {DELTAS!r}, got {STEPS!r}, with {reasons[0]}")

    def _lacks(self) -> dict[Property, str]:
        """Return the properties that the federation does not have, each with the reason."""
        name, lacks = type(self.strategy).__name__, dict[Property, str]()
        if self._stateless:
            lacks[Property.NODE_STATE] = "stateless"
        if privacy.is_private(self.strategy):
            lacks[Property.PLAIN_UPDATES] = f"the strategy, {name}"
        if str(self.down) == LOSSLESS:
            lacks[Property.LOSSY_DELTAS] = f"down, {LOSSLESS!r}"
        elif self.broadcast == STEPS:
            lacks[Property.LOSSY_DELTAS] = f"broadcast, {STEPS!r}"
        elif self._stateless and not self._shared_initial:
            lacks[Property.LOSSY_DELTAS] = "stateless, or shared_initial"
        return lacks

    def _check_trees(self) -> None:
        plain = self._terms["down"] in (AUTO, LOSSLESS) and (
            isinstance(self.up, Automatic) or self.up == Fixed(LOSSLESS)
        )
        if not plain or self._checkpoint or self._observers or self.extensions.extensions:
            raise SettingError(
                f"the models of {type(self.strategy).__name__} are trees, which are passed through: "
                f"up and down must be {AUTO!r} or {LOSSLESS!r}, with no checkpoint, no observers and no extensions"
            )
