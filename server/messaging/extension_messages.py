"""What extensions add to the requests that nodes are sent, and read of their replies."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from flwr.app import ConfigRecord

from fedpress.protocol.messages import ExtensionMessage


@dataclass(frozen=True)
class RequestContext:
    """The request that a node is about to be sent."""

    node: str  # the node's name
    has_initial: bool  # whether nodes have the model that the federation begins with before they are sent anything


class MessageExtension(Protocol):
    """An extension as far as messages go: its typed records go in, under its name, and come back."""

    name: ClassVar[str]

    def on_request(self, request: RequestContext) -> ExtensionMessage | None:
        """Return the record that is added to a request; None for none."""

    def on_reply(self, node: str, record: ConfigRecord | None) -> None:
        """Read this extension's record of a reply, None if it has none; raise FrameError to refuse the reply."""
