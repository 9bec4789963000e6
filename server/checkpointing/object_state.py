"""State as JSON and arrays: Flower's strategies have no protocol for their state, so their attributes are walked.

`take_apart` follows an object's attributes through supported types and refuses any other; `put_back` sets them in an
object that was constructed the same way.
"""

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp.strategy import Strategy

from fedpress.common.errors import SettingError


@runtime_checkable
class StatefulObject(Protocol):
    """An object that returns its own state, as privacy accountants do."""

    def state_dict(self) -> dict[str, object]:
        """Return the state for `load_state_dict`."""

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore a state that `state_dict` returned."""


Arrays = dict[str, np.ndarray]
_PLAIN = (bool, int, float, str)
# What a strategy waits for before a round: a setting that may change on resume, not state.
NODE_COUNTS = ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes")
_RECORDS: dict[str, Callable[..., Any]] = {"metrics": MetricRecord, "config": ConfigRecord}


def take_apart(thing: object, arrays: Arrays, path: str) -> Any:  # noqa: PLR0911  one for each kind
    """Return `thing` as JSON values; its arrays are added to `arrays`, under names that begin with `path`.

    Raises
    ------
    SettingError
        If it holds an object of an unsupported type; the message has its path and type.
    """
    if thing is None or type(thing) in _PLAIN:
        return thing
    match thing:
        case bytes():
            return {"bytes": thing.hex()}
        case np.ndarray() | np.generic():
            arrays[path] = np.ascontiguousarray(thing)
            return {"array": path, "shape": list(np.shape(thing)), "scalar": isinstance(thing, np.generic)}
        case ArrayRecord():
            return {"arrays": [[key, take_apart(a.numpy(), arrays, f"{path}.{key}")] for key, a in thing.items()]}
        case MetricRecord() | ConfigRecord():
            kind = "metrics" if isinstance(thing, MetricRecord) else "config"
            return {kind: take_apart(dict(thing), arrays, path)}
        case dict():
            pairs = [(take_apart(key, arrays, path), key, value) for key, value in thing.items()]
            return {"dict": [[key, take_apart(value, arrays, f"{path}.{raw}")] for key, raw, value in pairs]}
        case list() | tuple() | set():
            kind = type(thing).__name__
            return {kind: [take_apart(item, arrays, f"{path}.{i}") for i, item in enumerate(thing)]}
    if _is_setting(thing):
        return {"same": True}
    if isinstance(thing, StatefulObject):
        return {"state": take_apart(thing.state_dict(), arrays, path)}
    if _has_attributes(thing):
        return {"object": {key: take_apart(value, arrays, f"{path}.{key}") for key, value in vars(thing).items()}}
    raise SettingError(f"{path} is a {type(thing).__name__}, which a checkpoint cannot hold")


def put_back(saved: Any, arrays: Arrays, now: Any = None) -> Any:  # noqa: PLR0911  one for each kind
    """Return the object that `take_apart` was given; `now` is its counterpart in the new object."""
    if not isinstance(saved, dict):
        return saved
    ((kind, value), *_) = saved.items()
    match kind:
        case "bytes":
            return bytes.fromhex(value)
        case "array":
            array = arrays[value].reshape(saved["shape"])
            return array[()] if saved["scalar"] else array.copy()
        case "arrays":
            return ArrayRecord({key: Array(np.asarray(put_back(part, arrays))) for key, part in value})
        case "metrics" | "config":
            return _RECORDS[kind](put_back(value, arrays))
        case "dict":
            current = now if isinstance(now, dict) else {}
            restored = ((put_back(key, arrays), part) for key, part in value)
            return {key: put_back(part, arrays, current.get(key)) for key, part in restored}
        case "list" | "tuple" | "set":
            return {"list": list, "tuple": tuple, "set": set}[kind](put_back(part, arrays) for part in value)
        case "state":
            now.load_state_dict(put_back(value, arrays))
        case "object":
            for key, part in value.items():
                if key not in NODE_COUNTS:
                    setattr(now, key, put_back(part, arrays, getattr(now, key, None)))
    return now


def _is_setting(thing: object) -> bool:
    """Return whether it is configuration, set when the object was constructed, and not state."""
    return isinstance(thing, Enum | type) or inspect.isroutine(thing) or _is_frozen(thing)


def _is_frozen(thing: object) -> bool:
    parameters = getattr(type(thing), "__dataclass_params__", None)
    return parameters is not None and parameters.frozen


def _has_attributes(thing: object) -> bool:
    # flwr's own helpers, such as a privacy accountant, are plain objects as strategies are.
    return isinstance(thing, Strategy) or type(thing).__module__.partition(".")[0] == "flwr"
