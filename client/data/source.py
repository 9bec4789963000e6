"""A Python object installed on the device: it has x and y, or is callable without arguments and returns them."""

from typing import Any

import numpy as np

from fedpress.client.data.examples import LocalExamples, examples
from fedpress.common.errors import DataError
from fedpress.common.named import import_object


def read(name: str) -> LocalExamples:
    """Return the examples of `MODULE:OBJECT`.

    Raises
    ------
    SettingError
        If there is no such object.
    DataError
        If it does not have or return x and y.
    """
    where = f"python:{name}"
    found = import_object("data", name)
    if not hasattr(found, "x") and callable(found):
        try:
            found = found()
        except Exception as error:
            raise DataError(f"{where} failed: {type(error).__name__}: {error}") from error
    if isinstance(found, tuple) and len(found) == 2:
        x, y = found
    elif hasattr(found, "x") and hasattr(found, "y"):
        x, y = found.x, found.y
    else:
        raise DataError(f"{where} must have x and y as attributes, or return a pair, got {type(found).__name__}")
    return examples(where, _array(where, x), _array(where, y))


def _array(where: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: it is no array: {error}") from error
    if array.ndim == 0:
        raise DataError(f"{where}: the first axis must count examples, got one value")
    return array
