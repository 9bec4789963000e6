"""Settings: frozen dataclasses, read from the flat mapping of names with dashes that a Flower run is configured by."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from fedpress.common.errors import DataError, SettingError

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


def read_pair(text: str, who: str = "a setting is ") -> tuple[str, Value]:
    """Return KEY=VALUE as a pair, the value as TOML reads it, else as text; raise SettingError if it is none."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise SettingError(f"{who}KEY=VALUE, got {text!r}")
    try:
        found = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value
    if not isinstance(found, str | int | float | bool):
        raise SettingError(f"{who}one value, got {text!r}")
    return key, found


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds; raise DataError if it cannot be read, SettingError if it is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not TOML: {error}") from error
