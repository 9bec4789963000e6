"""The settings of a device: the defaults, client.toml's and the command line's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpress.common.settings import read_file
from fedpress.settings.device import ClientSettings, client_schema


def resolve(given: Mapping[str, Any], file: Path | None = None) -> ClientSettings:
    """Return the settings of a device: what is `given`, over a TOML file's, over the defaults.

    Raises
    ------
    SettingError
        If there is no such setting, or a value is out of range.
    DataError
        If the file cannot be read.
    """
    schema = client_schema()
    return ClientSettings(**schema.read({**(read_file(schema, file) if file else {}), **schema.flatten(given)}))
