"""The bytes of a message on the wire."""

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message.arraychunk import ArrayChunk
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as CHUNK
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_body, no_object_id_recompute

_LARGE = 1 << 12  # bytes of an array above which its size is computed without serializing it


def message_nbytes(message: Message) -> int:
    """Return the size of `message` as Flower sends it: its objects (message, records, arrays, chunks), each once.

    It includes ids and timestamps, so it varies by a few bytes between runs.
    """
    light, extra = _lighten(message)
    with no_object_id_recompute():
        return extra + sum(len(part.deflate()) for part in get_all_nested_objects(light).values())


def _lighten(message: Message) -> tuple[Message, int]:
    """Return `message` with placeholders for its large arrays, and the number of bytes by which that shortens it.

    Objects are named by their hash, and hashing a model for every node would take longer than sending it. An array
    is sent in chunks, each with a header that has its length in decimal; the placeholder has as many chunks.
    """
    if not message.has_content():
        return message, 0
    extra = 0
    seen: set[int] = set()
    content = RecordDict()
    for key, record in message.content.items():
        if not isinstance(record, ArrayRecord):
            content[key], more = _lighten_config(record) if isinstance(record, ConfigRecord) else (record, 0)
            extra += more
            continue
        arrays = content[key] = ArrayRecord()
        for name, array in record.items():
            size = len(array.data)
            # A copy: an array that has been measured keeps views of its bytes, and cannot be pickled with them.
            arrays[name] = Array(array.dtype, tuple(array.shape), array.stype, array.data if size <= _LARGE else b"")
            if size > _LARGE:
                token = id(array.data)  # equal arrays are one object, and so are their placeholders
                chunks = [memoryview(f"{token:020}{at:012}".encode()) for at in range(0, size, CHUNK)]
                arrays[name].__dict__["_chunks"] = [(part.object_id, part) for part in map(ArrayChunk, chunks)]
                if token not in seen:
                    seen.add(token)
                    for at, chunk in zip(range(0, size, CHUNK), chunks, strict=True):
                        length = min(CHUNK, size - at)
                        extra += length - len(chunk) + len(str(length)) - len(str(len(chunk)))
    light = Message(metadata=message.metadata, content=content)  # type: ignore[call-overload]
    return light, extra


def _lighten_config(record: ConfigRecord) -> tuple[ConfigRecord, int]:
    """Return `record` with placeholders for its long bytes, and the number of bytes by which that shortens it.

    It is sent as protobuf, with a length before each value, item and record, after a header like that of arrays.
    """
    long = {key: value for key, value in record.items() if isinstance(value, bytes) and len(value) > _LARGE}
    if not long:
        return record, 0
    light = ConfigRecord({**record, **{key: f"{id(value):020}".encode() for key, value in long.items()}})
    shorter = sum(_item(key, len(value)) - _item(key, 20) for key, value in long.items())
    body = len(get_object_body(light.deflate(), ConfigRecord))
    return light, shorter + len(str(body + shorter)) - len(str(body))


def _item(key: str, size: int) -> int:
    """Return the size of an item of a ConfigRecord with `size` bytes under `key`."""
    value = 1 + _varint(size) + size
    name = len(key.encode())
    item = 1 + _varint(name) + name + 1 + _varint(value) + value
    return 1 + _varint(item) + item


def _varint(number: int) -> int:
    return max(1, -(-number.bit_length() // 7))
