"""Messages that a device receives from a SuperLink, and its replies."""

from dataclasses import dataclass


@dataclass(frozen=True)
class IncomingMessage:
    """A message from the server."""

    id: str  # of the message at the server
    run: int
    head: bytes  # the message without its content, and the tree of its objects, serialized by flwr
    objects: dict[str, bytes] | None = None  # by id; None before they are fetched


@dataclass(frozen=True)
class OutgoingReply:
    """A reply to the server."""

    to: str  # id of the message that it replies to
    run: int
    head: bytes  # the reply without its content, and the tree of its objects
    objects: dict[str, bytes]
    seconds: float  # run time of the app
