"""What a device and a SuperLink exchange: a message to work on, and the reply to one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class IncomingMessage:
    """A message that the server handed out."""

    id: str  # the message's, as the server names it
    run: int
    head: bytes  # the message without its content, and the tree of its objects, as flwr writes them
    objects: dict[str, bytes] | None = None  # by id; None until they are here


@dataclass(frozen=True)
class OutgoingReply:
    """A reply that is to reach the server."""

    to: str  # id of the message that it answers
    run: int
    head: bytes  # the reply without its content, and the tree of its objects
    objects: dict[str, bytes]
    seconds: float  # that the app took
