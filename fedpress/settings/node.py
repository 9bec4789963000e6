"""The configuration of a node, as Flower's context has it, read in one place."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class NodeConfig:
    """The configuration of one node: the engine's in a simulation, that of client.toml and the enrolment on a device.

    Examples
    --------
    >>> NodeConfig.read({"partition-id": 3}, node_id=17).name
    '3'
    """

    name: str  # its enrolled name on a device, its partition's number in a simulation
    partition: int | None = None  # the part of the task's data that it has; None for a device without one
    data: str = ""  # where the device's own data is; empty for the task's
    width: str = ""  # largest share of a model's channels that it can train; empty if not configured
    model: str = ""  # the workload's model that it can train; empty if not configured

    @classmethod
    def read(cls, config: Mapping[str, object], node_id: int) -> "NodeConfig":
        """Return the configuration in Flower's `node_config`.

        Parameters
        ----------
        config : mapping
            The `node_config` of a Flower context.
        node_id : int
            The node's id, its name if it has no other.

        Returns
        -------
        NodeConfig
            The configuration.
        """
        partition = config.get("partition-id")
        return cls(
            name=str(config.get("name", node_id if partition is None else partition)),
            partition=None if partition is None else int(str(partition)),
            data=str(config.get("data", "")),
            width=str(config.get("width", "")),
            model=str(config.get("model", "")),
        )

    @property
    def number(self) -> int:
        """The number that the node's random choices derive from: its partition, else one that its name gives."""
        if self.partition is not None:
            return self.partition
        return int.from_bytes(hashlib.blake2b(self.name.encode(), digest_size=4).digest(), "little")
