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
        rows = [[name, r.held.hex(), r.offered.hex(), r.accepted.hex(), r.turn] for name, r in self.items()]
        return {"nodes": rows}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "NodeRecords":
        """Return the records that `as_json` returned."""
        records = cls()
        for name, held, offered, accepted, *rest in saved["nodes"]:
            records[name] = NodeRecord(bytes.fromhex(held), bytes.fromhex(offered), bytes.fromhex(accepted), *rest)
        return records
