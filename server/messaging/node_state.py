"""What the server knows of each node."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class NodeRecord:
    """One node, as far as its messages tell."""

    held: bytes = b""  # version of the model that it last said it holds
    offered: bytes = b""  # version that it was sent since, if it has not been heard of again
    accepted: bytes = b""  # name of the last frame that counted
    turn: int = 0  # how many updates it had sent by its last reply that arrived


class NodeRecords(dict[str, NodeRecord]):
    """All nodes by name; one that is asked for is there."""

    def __missing__(self, name: str) -> NodeRecord:
        self[name] = NodeRecord()
        return self[name]

    @property
    def versions(self) -> set[bytes]:
        """Versions that some node holds, or may hold."""
        return {version for peer in self.values() for version in (peer.held, peer.offered) if version}

    def as_json(self) -> dict[str, Any]:
        """Return all that is known, as JSON can hold it."""
        rows = [[name, p.held.hex(), p.offered.hex(), p.accepted.hex(), p.turn] for name, p in self.items()]
        return {"nodes": rows}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "NodeRecords":
        """Return what `as_json` wrote."""
        peers = cls()
        for name, held, offered, accepted, *rest in saved["nodes"]:
            peers[name] = NodeRecord(bytes.fromhex(held), bytes.fromhex(offered), bytes.fromhex(accepted), *rest)
        return peers
