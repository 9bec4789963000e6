"""The server's record of each node."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class NodeRecord:
    """The state of one node, from its messages."""

    held: bytes = b""  # version of the model that it holds, by its last reply
    offered: bytes = b""  # version that it was sent after that; empty once it replied
    accepted: bytes = b""  # name of the last frame that was aggregated
    turn: int = 0  # number of stateful updates that it had sent by its last reply
    silent: int = 0  # number of requests in a row for which it counts as silent
    silent_round: int = 0  # round of the last of these
    cut_off: int = 0  # number of requests in a row whose rounds closed before it replied, and before their timeout

    def note_silence(self, round: int, *, cut_off: bool) -> None:
        """Record that it did not reply in a round, which closed before its timeout if `cut_off`.

        Whether a node that was cut off is slow or silent shows only later: it counts as silent after a few rounds.
        """
        self.cut_off = self.cut_off + 1 if cut_off else 0
        if not cut_off or self.cut_off > _PATIENCE:
            self.silent, self.silent_round = self.silent + 1, round

    def rests(self, round: int) -> bool:
        """Return whether others are asked in its place: it did not answer, and longer each time that it did not."""
        return self.silent > 0 and round - self.silent_round < 1 << min(self.silent, _MAX_REST)


_PATIENCE = 3  # rounds in a row in which a node may be too slow before it counts as silent
_MAX_REST = 3  # a node rests for fewer than 2**3 rounds


class NodeRecords(dict[str, NodeRecord]):
    """The records of all nodes by name; a missing one is created on access."""

    def __missing__(self, name: str) -> NodeRecord:
        self[name] = NodeRecord()
        return self[name]

    @property
    def versions(self) -> set[bytes]:
        """Versions that some node holds, or may hold."""
        return {version for record in self.values() for version in (record.held, record.offered) if version}

    def as_json(self) -> dict[str, Any]:
        """Return the records as JSON."""
        rows = [
            [name, r.held.hex(), r.offered.hex(), r.accepted.hex(), r.turn, r.silent, r.silent_round, r.cut_off]
            for name, r in self.items()
        ]
        return {"nodes": rows}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "NodeRecords":
        """Return the records that `as_json` returned."""
        records = cls()
        for name, held, offered, accepted, *rest in saved["nodes"]:
            records[name] = NodeRecord(bytes.fromhex(held), bytes.fromhex(offered), bytes.fromhex(accepted), *rest)
        return records
