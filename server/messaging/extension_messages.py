"""The records that extensions add to requests, and read from replies."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from flwr.app import ConfigRecord

from fedpress.protocol.messages import ExtensionMessage


@dataclass(frozen=True)
class RequestContext:
    """A request that is about to be sent.

    Examples
    --------
    >>> RequestContext(node="a", has_initial=False).node
    'a'
    """

    node: str  # the node's name
    has_initial: bool  # whether nodes have the initial model of the federation from the start


class MessageExtension(Protocol):
    """The part of an extension that adds typed records to requests and reads those of replies."""

    name: ClassVar[str]

    def on_request(self, request: RequestContext) -> ExtensionMessage | None:
        """Return the record to add to a request, or None."""

    def on_reply(self, node: str, record: ConfigRecord | None) -> None:
        """Read this extension's record of a reply, None if it has none; raise FrameError to refuse the reply."""
