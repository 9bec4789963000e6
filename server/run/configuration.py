"""What a run is configured by: a file's tables and the command line's words, flattened; and a run that goes on."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from fedpress.common.errors import SettingError, unknown
from fedpress.common.settings import Value, read_toml
from fedpress.server.rate_control.policies import PREFIX as POLICY
from fedpress.server.run.recorder import CHECKPOINT
from fedpress.server.strategy.flower_strategies import PREFIX as STRATEGY

CONFIG = "config.json"  # in the folder of checkpoints
_LEADS = {"strategy": STRATEGY, "policy": POLICY}


def read_tables(path: Path, sections: Collection[str], leads: Mapping[str, str] | None = None) -> dict[str, Value]:
    """Return what a TOML file says, the tables named `sections` taken apart.

    `[strategy]`, `[policy]` and the tables that `leads` has keep their prefix before each key.

    Raises
    ------
    SettingError
        If there is another table, or a value that is not one.
    DataError
        If the file cannot be read.
    """
    flat: dict[str, Any] = {}
    leads = {**_LEADS, **(leads or {})}
    for name, value in read_toml(path).items():
        if not isinstance(value, dict):
            flat[name] = value
        elif lead := leads.get(name):
            flat |= {(name if key == "name" and name in _LEADS else lead + key): item for key, item in value.items()}
        elif name in sections:
            flat |= value
        else:
            raise SettingError(f"{path}: {unknown('table', name, [*leads, *sections])}")
    for name, value in flat.items():
        if not isinstance(value, str | int | float | bool):
            raise SettingError(f"{path}: {name} is one value, got {value!r}")
    return flat


def go_on(
    given: Mapping[str, Value], resolve: Callable[[Mapping[str, Value]], dict[str, Value]], free: Collection[str]
) -> dict[str, Value]:
    """Return the configuration of a run that is to begin, or with `resume` of the one that its folder holds.

    `resolve` makes a whole configuration of what is given; settings in `free` may change from one try to the next.

    Raises
    ------
    SettingError
        As `resolve` does; and if a setting is given that is not that of the run to go on with.
    """
    if not given.get("resume"):
        return resolve(given)
    if not given.get("out"):
        raise SettingError("resume goes on with the run in a folder: name it with --out")
    path = Path(str(given["out"])).expanduser() / CHECKPOINT / CONFIG
    if not path.exists():  # killed before it began, or the first of several tries
        return resolve(given)
    saved: dict[str, Value] = json.loads(path.read_bytes())
    wanted = resolve({**saved, **given})
    for key, value in wanted.items():
        if key not in free and value != saved.get(key):
            raise SettingError(
                f"the run in {given['out']} has {key} {saved.get(key)!r}: it cannot go on with {value!r}"
            )
    return wanted
