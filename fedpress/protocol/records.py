"""A node's state, Flower's records, as JSON with large arrays stored separately."""

import base64
from collections.abc import Callable
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

LARGE = 1 << 16  # bytes from which an array is stored separately

_KINDS: dict[str, type] = {"metrics": MetricRecord, "config": ConfigRecord}


def to_rows(state: RecordDict, put: Callable[[bytes], str]) -> list[Any]:
    """Return `state` as JSON values; `put` stores the bytes of a large array and returns their name."""
    rows: list[Any] = []
    for key, record in state.items():
        if isinstance(record, ArrayRecord):
            arrays = []
            for name, array in record.items():
                large = len(array.data) >= LARGE
                data = put(array.data) if large else base64.b64encode(array.data).decode()
                arrays.append([name, array.dtype, list(array.shape), array.stype, large, data])
            rows.append([key, "arrays", arrays])
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            rows.append([key, kind, {name: _to_json(value) for name, value in record.items()}])
    return rows


def from_rows(rows: list[Any], get: Callable[[str], bytes]) -> RecordDict:
    """Return the state that `to_rows` wrote; `get` returns the bytes stored under a name."""
    state = RecordDict()
    for key, kind, value in rows:
        if kind == "arrays":
            state[key] = ArrayRecord(
                {
                    name: Array(dtype, tuple(shape), stype, get(text) if large else base64.b64decode(text))
                    for name, dtype, shape, stype, large, text in value
                }
            )
        else:
            state[key] = _KINDS[kind]({name: _from_json(item) for name, item in value.items()})
    return state


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return [_to_json(item) for item in value] if isinstance(value, list) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["bytes"])
    return [_from_json(item) for item in value] if isinstance(value, list) else value
