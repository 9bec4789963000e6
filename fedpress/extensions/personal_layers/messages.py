"""Messages between server and nodes for personal layers."""

from dataclasses import dataclass

from fedpress.compression import Layout
from fedpress.protocol.messages import ExtensionMessage


@dataclass(frozen=True)
class PersonalLayersRequest(ExtensionMessage):
    """Identifies the personal tensors; frames, masks, versions and layouts of a message leave them out."""

    mask: bytes  # which of the whole model's tensors are personal
    frame: bytes  # the personal tensors' initial values, exact; empty if the node has its own, or computes them
    layout: str  # of the personal tensors, as text; empty without a frame

    @property
    def payload_nbytes(self) -> int:
        return len(self.frame)

    @property
    def payload_raw_nbytes(self) -> int:
        return Layout.read(self.layout).nbytes if self.frame else 0


@dataclass(frozen=True)
class PersonalLayersReply(ExtensionMessage):
    """Reports the node's personal tensors."""

    owned: bool  # whether the node keeps personal tensors
