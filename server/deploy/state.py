"""The state of a federation at one moment, as the server reports it: in the table, the metrics and JSON."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fedpress.server.run.recorder import CHECKPOINT, RESULT, TRAFFIC


@dataclass(frozen=True)
class NodeState:
    """One node."""

    name: str
    id: int
    online: bool
    seen: float  # when it was last heard of, seconds since 1970; 0 for never
    version: str  # of the model that it holds, in hexadecimal; empty if that is not known
    up: int  # bytes of its requests since the server started
    down: int
    failures: int  # rounds in which it was asked and its reply did not count


@dataclass
class State:
    """All of it; `phase` is a word or two for what the server does."""

    phase: str = "starting"
    nodes: list[NodeState] = field(default_factory=list)
    wanted: int = 0  # nodes that the next round waits for
    rounds: int = 0  # that there will be
    result: dict[str, Any] = field(default_factory=dict)  # as result.json has it
    refusals: Mapping[str, int] = field(default_factory=dict)  # by cause
    restarts: int = 0
    advice: str = ""  # the remedy for a federation that cannot continue


class Records:
    """Reads what the ServerApp leaves in the run's folder, again when it changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._marks: dict[str, int] = {}
        self.result: dict[str, Any] = {}
        self.failures: dict[str, int] = {}
        self.held: dict[str, str] = {}

    def refresh(self) -> bool:
        """Read what changed; return whether there is a round more."""
        if not self._changed(RESULT):
            return False
        try:
            self.result = json.loads((self._folder / RESULT).read_bytes())
        except (OSError, ValueError):
            return False
        self._read_failures()
        self._read_versions()
        return True

    def _changed(self, name: str) -> bool:
        try:
            mark = (self._folder / name).stat().st_mtime_ns
        except FileNotFoundError:
            return False
        before, self._marks[name] = self._marks.get(name), mark
        return before != mark

    def _read_failures(self) -> None:
        self.failures = {}
        try:
            with (self._folder / TRAFFIC).open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    self.failures.setdefault(row["node"], 0)
                    self.failures[row["node"]] += not row["examples"] and row["down_message"] != "0"
        except FileNotFoundError:
            pass

    def _read_versions(self) -> None:
        """Read who holds what from the newest checkpoint's header; it may be of the round before."""
        for path in sorted((self._folder / CHECKPOINT).glob("round-*.safetensors"), reverse=True)[:1]:
            try:
                with safe_open(path, "numpy") as file:
                    facts = json.loads(file.metadata()["facts"])
            except (SafetensorError, OSError, KeyError, TypeError, ValueError):
                return
            self.held = {name: held or offered for name, held, offered, *_ in facts["peers"]["nodes"]}
