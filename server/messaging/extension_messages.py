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
    """The part of an extension that adds typed records to requests and reads those of replies.

    Examples
    --------
    >>> class Silent:
    ...     name = "silent"
    ...
    ...     def on_request(self, request: RequestContext) -> ExtensionMessage | None:
    ...         return None
    ...
    ...     def on_reply(self, node: str, record: ConfigRecord | None) -> None:
    ...         pass
    >>> extension: MessageExtension = Silent()
    """

    name: ClassVar[str]

    def on_request(self, request: RequestContext) -> ExtensionMessage | None:
        """Return the record to add to a request.

        Parameters
        ----------
        request : RequestContext
            The request that is about to be sent.

        Returns
        -------
        ExtensionMessage or None
            The typed record; None to add nothing.
        """

    def on_reply(self, node: str, record: ConfigRecord | None) -> None:
        """Read this extension's record of a reply.

        Parameters
        ----------
        node : str
            The node's name.
        record : ConfigRecord or None
            The record; None if the reply has none.

        Raises
        ------
        FrameError
            To refuse the reply.
        """
