"""What is named and changed in one word: `NAME,KEY=NUMBER,KEY=NUMBER`."""

import math
from collections.abc import Mapping
from typing import Any

from fedpress.common.errors import SettingError, unknown


def read_changes(text: str, what: str, takes: Mapping[str, type]) -> tuple[str, dict[str, Any]]:
    """Return the name in `text` and what is to be changed, each of the kind that `takes` says; `what` it is a name of.

    Raises SettingError if a key is unknown, or its value no number.
    """
    name, *changes = text.split(",")
    given: dict[str, Any] = {}
    for change in changes:
        key, _, value = change.strip().partition("=")
        if key not in takes:
            raise SettingError(unknown(f"part of the {what} {name!r}", key, takes))
        try:
            given[key] = takes[key](value)
            if not math.isfinite(given[key]):
                raise ValueError(value)
        except ValueError as error:
            raise SettingError(f"the {key} of a {what} is a finite number, got {value!r}") from error
    return name, given
