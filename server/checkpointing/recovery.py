"""From a federation's state to a checkpoint, and back."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.serverapp.strategy import Result, Strategy

from fedpress.common.errors import SettingError
from fedpress.common.logs import LOGGER
from fedpress.server.checkpointing.files import KEPT, Checkpoints, Saved
from fedpress.server.checkpointing.object_state import Arrays, put_back, take_apart
from fedpress.server.messaging.exchange import Exchange
from fedpress.server.messaging.node_state import Peers

_log = logging.getLogger(LOGGER)
_HISTORY = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")


class Recovery:
    """Keeps the checkpoints of one federation.

    Parameters
    ----------
    folder : of the checkpoints
    terms : what must be the same for a run to go on; JSON
    resume : whether to go on from what is there

    Raises
    ------
    SettingError
        If `strategy` keeps what no checkpoint can hold, or the folder holds checkpoints that nobody goes on from.
    """

    def __init__(self, folder: Path, strategy: Strategy, terms: Mapping[str, Any], *, resume: bool) -> None:
        take_apart(strategy, {}, type(strategy).__name__)
        self._checkpoints = Checkpoints(folder)
        if not resume and not self._checkpoints.empty:
            raise SettingError(f"{folder} holds checkpoints: go on from them with resume, or name another folder")
        self._strategy = strategy
        self._terms = dict(terms)
        self._held: list[set[bytes]] = []  # versions that the checkpoints on the disk speak of

    @property
    def versions(self) -> Path:
        """The folder of the models that nodes hold."""
        return self._checkpoints.versions

    @property
    def needed(self) -> set[bytes]:
        """Versions without which the checkpoints could not be gone on from."""
        return set().union(*self._held)

    def save(self, round: int, exchange: Exchange, result: Result) -> None:
        """Write a checkpoint of `round`, which is over."""
        models, peers = exchange.models, exchange.peers
        nodes, rows = exchange.ledger.table
        arrays: Arrays = {"ledger": rows}
        facts = {
            "terms": self._terms,
            "server": exchange.server.hex(),
            "peers": peers.as_json(),
            "nodes": nodes,
            "models": take_apart(models.save(), arrays, "models"),
            "history": [take_apart(getattr(result, name), arrays, name) for name in _HISTORY],
            "strategy": take_apart(self._strategy, arrays, "strategy"),
            "clients": exchange.grid.snapshot(),
        }
        self._checkpoints.save(Saved(round, facts, arrays))
        self._held = [*self._held, peers.versions | models.lasting][-KEPT:]

    def resume(self, exchange: Exchange, result: Result) -> int | None:
        """Go on from the newest checkpoint; return its round, None if there is none.

        Raises
        ------
        SettingError
            If it is of a run on other terms.
        DataError
            If it cannot be read.
        """
        saved = self._checkpoints.load()
        if saved is None:
            return None
        facts, arrays = saved.facts, saved.arrays
        for name, value in self._terms.items():
            if facts["terms"].get(name) != value:
                was = facts["terms"].get(name)
                raise SettingError(f"the checkpoint is of a run with {name} {was!r}: resumed with {value!r}")
        exchange.models.resume(put_back(facts["models"], arrays), saved.round)
        exchange.server = bytes.fromhex(facts["server"])
        exchange.peers = Peers.from_json(facts["peers"])
        exchange.ledger.refill(facts["nodes"], arrays["ledger"])
        for name, history in zip(_HISTORY, facts["history"], strict=True):
            setattr(result, name, put_back(history, arrays))
        put_back(facts["strategy"], arrays, self._strategy)
        if not exchange.grid.restore(facts["clients"]):
            _log.warning(
                "this engine does not keep its nodes' states: round %d goes on with what they have", saved.round
            )
        self._held = [exchange.peers.versions | exchange.models.lasting]
        return saved.round
