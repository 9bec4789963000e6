"""Messages with the metadata that a SuperLink sets, for engines without one."""

import uuid
from typing import Any

from flwr.app import Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedpress.flower.metadata import get_metadata, set_metadata

RAISED = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
CRASHED = ErrorCode.CLIENT_APP_CRASHED
# The errors of a node that is gone, or whose reply never came whole.
GONE = frozenset({ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE})

__all__ = [
    "CRASHED",
    "GONE",
    "RAISED",
    "empty_run",
    "error_reply",
    "identify",
    "message_of",
    "parts_of",
    "stamp",
]


def identify(run_id: int) -> None:
    """Set the identity of this process in flwr, without which no Message can be made."""
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    TaskIdentity.task_id = 1


def empty_run(run_id: int) -> Run:
    """Return the description of a run that has no bundle."""
    return Run.create_empty(run_id)


def stamp(message: Message, run_id: int) -> Message:
    """Set the ids of `message` that a SuperLink would set."""
    set_metadata(message.metadata, message_id=uuid.uuid4().hex, run_id=run_id)
    return message


def parts_of(message: Message) -> tuple[dict[str, Any], RecordDict | None, tuple[int, str | None] | None]:
    """Return the parts from which another process can rebuild `message`: metadata, content, error."""
    content = message.content if message.has_content() else None
    error = (message.error.code, message.error.reason) if message.has_error() else None
    return get_metadata(message.metadata), content, error


def message_of(
    metadata: dict[str, Any], content: RecordDict | None, error: tuple[int, str | None] | None = None
) -> Message:
    """Return the message with the parts that `parts_of` returned."""
    return make_message(Metadata(**metadata), content, Error(*error) if error else None)


def error_reply(message: Message, code: int, reason: str) -> Message:
    """Return the reply of a node that failed."""
    return Message(Error(code, reason), reply_to=message)
