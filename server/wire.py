"""The server's one touch of flwr's private names: types that its interfaces mention, and how long a message is."""

from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
from flwr.supercore.run import Run

__all__ = ["NodeInfo", "Run", "message_nbytes"]


def message_nbytes(message: Message) -> int:
    """Return the bytes of `message` as Flower sends it: its objects (message, records, arrays, chunks), each once.

    Ids and timestamps are part of it, so it varies by a few bytes from run to run.
    """
    with no_object_id_recompute():
        parts = get_all_nested_objects(message).values()
        size = sum(len(part.deflate()) for part in parts)
    for part in parts:
        # An array remembers its chunks as views of its bytes, and cannot be pickled with them.
        part.__dict__.pop("_chunks", None)
    return size
