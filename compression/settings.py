"""Settings: frozen dataclasses, read from the flat mapping of names with dashes that a Flower run is configured by."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TypeVar, get_type_hints

from fedpress.compression.errors import SettingError

Value = str | int | float | bool
S = TypeVar("S")

KINDS: dict[type, str] = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}


def key_of(field: str) -> str:
    """Return the name under which a dataclass's field stands in a configuration."""
    return field.replace("_", "-")


def read(cls: type[S], config: Mapping[str, Value]) -> S:
    """Return the settings `cls` from the keys of `config` that are its own; others are somebody else's.

    Raises
    ------
    SettingError
        If a key is missing that has no default, or a value is of the wrong kind or out of range.
    """
    kinds = get_type_hints(cls)
    given = {}
    for field in fields(cls):  # type: ignore[arg-type]
        key = key_of(field.name)
        if key in config:
            given[field.name] = convert(key, config[key], kinds[field.name])
        elif field.default is MISSING:
            raise SettingError(f"{key} is missing")
    return cls(**given)


def convert(key: str, value: Value, kind: type) -> Value:
    """Return `value` as the `kind` that the setting `key` has: a whole number is a number too, nothing else changes."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise SettingError(f"{key} is {KINDS[kind]}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingError(f"{key} is a finite number, got {value}")
    return value


def require(holds: bool, field: str, rule: str, value: object) -> None:
    """Raise SettingError, which says the `rule` and the `value`, unless it `holds`."""
    if not holds:
        raise SettingError(f"{key_of(field)} is {rule}, got {value}")
