"""The server's one touch of flwr's private names: types that its interfaces mention, and how long a message is."""

from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.app.message.arraychunk import ArrayChunk
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as CHUNK
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
from flwr.supercore.run import Run

__all__ = ["NodeInfo", "Run", "message_nbytes"]

_LARGE = 1 << 12  # bytes of an array from which it is measured and not laid out


def message_nbytes(message: Message) -> int:
    """Return the bytes of `message` as Flower sends it: its objects (message, records, arrays, chunks), each once.

    Ids and timestamps are part of it, so it varies by a few bytes from run to run.
    """
    light, extra = _lighten(message)
    with no_object_id_recompute():
        return extra + sum(len(part.deflate()) for part in get_all_nested_objects(light).values())


def _lighten(message: Message) -> tuple[Message, int]:
    """Return `message` with stand-ins for its large arrays, and how many bytes they make it shorter.

    Objects are named by their hash, and hashing a model for every node would take longer than sending it. An array
    travels in chunks, each its bytes behind a header that has their number in decimal: the stand-in has as many.
    """
    if not message.has_content():
        return message, 0
    extra = 0
    seen: set[int] = set()
    content = RecordDict()
    for key, record in message.content.items():
        if not isinstance(record, ArrayRecord):
            content[key] = record
            continue
        arrays = content[key] = ArrayRecord()
        for name, array in record.items():
            size = len(array.data)
            # A copy: an array that has been measured keeps views of its bytes, and cannot be pickled with them.
            arrays[name] = Array(array.dtype, tuple(array.shape), array.stype, array.data if size <= _LARGE else b"")
            if size > _LARGE:
                token = id(array.data)  # equal arrays are one object: so are their stand-ins
                chunks = [memoryview(f"{token:020}{at:012}".encode()) for at in range(0, size, CHUNK)]
                arrays[name].__dict__["_chunks"] = [(part.object_id, part) for part in map(ArrayChunk, chunks)]
                if token not in seen:
                    seen.add(token)
                    for at, chunk in zip(range(0, size, CHUNK), chunks, strict=True):
                        length = min(CHUNK, size - at)
                        extra += length - len(chunk) + len(str(length)) - len(str(len(chunk)))
    light = Message(metadata=message.metadata, content=content)  # type: ignore[call-overload]
    return light, extra
