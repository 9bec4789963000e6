"""Saves a federation's state as a checkpoint, and restores it."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from flwr.serverapp.strategy import Result, Strategy

from fedpress.common.errors import SettingError
from fedpress.common.files import locked, make_folder
from fedpress.common.logs import LOGGER
from fedpress.common.version import versions
from fedpress.flower.grid import RestoredStates
from fedpress.server.checkpointing.files import KEPT, CheckpointContent, Checkpoints
from fedpress.server.checkpointing.object_state import Arrays, put_back, take_apart
from fedpress.server.messaging.exchange import Exchange
from fedpress.server.messaging.node_state import NodeRecords

_log = logging.getLogger(LOGGER)
_WAIT = 10.0  # seconds for a process that is on its way out, such as a ServerApp that is being killed
_HISTORY = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")


class Stateful(Protocol):
    """A part of the federation with state that checkpoints include."""

    def dump_state(self) -> Mapping[str, Any]:
        """Return the state for `load_state`."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `dump_state` returned."""


class Recovery:
    """Keeps the checkpoints of one federation; `open` locks their folder.

    Parameters
    ----------
    folder : Path
        Their folder.
    strategy : Strategy
        The inner strategy.
    terms : mapping of str to Any
        Values that must be equal for a run to be resumed, by name; JSON.
    parts : mapping of str to Stateful
        Further parts whose state checkpoints include, by name.
    resume : bool
        Whether to continue from the newest checkpoint in the folder, if there is one.

    Raises
    ------
    SettingError
        If a checkpoint cannot hold `strategy`'s state, or the folder holds checkpoints and `resume` is False.
    """

    def __init__(
        self,
        folder: Path,
        strategy: Strategy,
        terms: Mapping[str, Any],
        parts: Mapping[str, Stateful],
        *,
        resume: bool,
    ) -> None:
        take_apart(strategy, {}, type(strategy).__name__)
        self._checkpoints = Checkpoints(folder)
        if not resume and not self._checkpoints.empty:
            raise SettingError(f"{folder} holds checkpoints: continue from them with resume, or name another folder")
        self._resumes = resume
        self._strategy = strategy
        self._terms = dict(terms)
        self._parts = parts
        self._held: list[set[bytes]] = []  # versions of the models that the checkpoints on the disk refer to

    @classmethod
    @contextmanager
    def open(
        cls,
        folder: Path,
        strategy: Strategy,
        terms: Mapping[str, Any],
        parts: Mapping[str, Stateful],
        *,
        resume: bool,
    ) -> Iterator["Recovery"]:
        """Yield the checkpoints in a folder that nothing else uses meanwhile; raise FolderInUseError if it is used."""
        make_folder(folder)
        with locked(folder, "run", wait=_WAIT):
            yield cls(folder, strategy, terms, parts, resume=resume)

    @property
    def models(self) -> Path:
        """The folder of the models that nodes hold."""
        return self._checkpoints.versions

    @property
    def needed(self) -> set[bytes]:
        """Versions of the models that the checkpoints need."""
        return set().union(*self._held)

    def save(self, round: int, exchange: Exchange, extensions: Stateful, result: Result) -> None:
        """Write a checkpoint of the finished round `round`."""
        models, records = exchange.models, exchange.nodes
        nodes, rows = exchange.ledger.table
        arrays: Arrays = {"ledger": rows}
        facts = {
            "terms": self._terms,
            "server": exchange.server.hex(),
            "peers": records.as_json(),
            "nodes": nodes,
            "models": take_apart(models.save(), arrays, "models"),
            "extensions": take_apart(dict(extensions.dump_state()), arrays, "extensions"),
            "history": [take_apart(getattr(result, name), arrays, name) for name in _HISTORY],
            "strategy": take_apart(self._strategy, arrays, "strategy"),
            "clients": exchange.grid.snapshot(),
            "versions": versions(),
            "parts": {name: take_apart(part.dump_state(), arrays, name) for name, part in self._parts.items()},
        }
        models.sync()  # before the checkpoint that refers to them
        self._checkpoints.save(CheckpointContent(round, facts, arrays))
        self._held = [*self._held, records.versions | models.lasting][-KEPT:]

    def resume(self, exchange: Exchange, extensions: Stateful, result: Result) -> int | None:
        """Continue from the newest checkpoint; return its round, None without a checkpoint or if a new run starts.

        Raises
        ------
        SettingError
            If it is of a run with different `terms`, or of a model with another layout.
        DataError
            If it cannot be read.
        """
        saved = self._checkpoints.load() if self._resumes else None
        if saved is None:
            return None
        facts, arrays = saved.facts, saved.arrays
        for name in {**facts["terms"], **self._terms}:
            was, now = facts["terms"].get(name), self._terms.get(name)
            if was != now:
                raise SettingError(f"{name} must be that of the checkpoint's run, {was!r}, got {now!r}")
        models = put_back(facts["models"], arrays)
        exchange.models.check(models)
        _log_versions(facts["versions"])
        extensions.load_state(put_back(facts["extensions"], arrays))
        exchange.models.resume(models, saved.round)
        exchange.server = bytes.fromhex(facts["server"])
        exchange.nodes = NodeRecords.from_json(facts["peers"])
        exchange.ledger.refill(facts["nodes"], arrays["ledger"])
        for name, history in zip(_HISTORY, facts["history"], strict=True):
            setattr(result, name, put_back(history, arrays))
        put_back(facts["strategy"], arrays, self._strategy)
        for name, part in self._parts.items():
            if name in facts["parts"]:
                part.load_state(part_of(saved, name))
        self._held = [exchange.nodes.versions | exchange.models.lasting]
        self._restore_nodes(exchange, facts["clients"], saved.round)
        return saved.round

    @staticmethod
    def _restore_nodes(exchange: Exchange, snapshot: Any, round: int) -> None:
        """Restore the nodes' states, or take into account that the engine cannot."""
        match exchange.grid.restore(snapshot):
            case RestoredStates.KEPT:
                _log.warning("the nodes' states are not restored: after round %d nodes continue with theirs", round)
            case RestoredStates.LOST:
                exchange.nodes.clear()
                _log.warning(
                    "the nodes' states of round %d are gone: nodes are sent whole models, and codecs with memory start "
                    "anew; simulate(..., states=FOLDER) keeps them",
                    round,
                )
            case RestoredStates.RESTORED:
                pass


def part_of(saved: CheckpointContent, name: str) -> Any:
    """Return the state of the part `name` in a checkpoint, as `dump_state` returned it."""
    return put_back(saved.facts["parts"][name], saved.arrays)


def _log_versions(saved: Mapping[str, str]) -> None:
    now = versions()
    names = [name for name in {**saved, **now} if name != "cores" and saved.get(name) != now.get(name)]
    changes = [f"{name} {saved.get(name)}, now {now.get(name)}" for name in names]
    if changes:
        _log.warning("the run is resumed under other versions, its results may differ: %s", "; ".join(changes))
