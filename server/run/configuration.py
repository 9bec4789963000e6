"""The settings of a resumed run: those in its folder, and which of them may be changed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedpress.common.errors import SettingError
from fedpress.server.run.recorder import CHECKPOINT
from fedpress.settings import RunSettings

CONFIG = "config.json"  # in the folder of checkpoints


def continue_run(
    given: Mapping[str, Any],
    resolve: Callable[[Mapping[str, Any], Mapping[str, Any]], RunSettings],
    *,
    adjustable: bool = False,
) -> RunSettings:
    """Return the settings of a new run, or with `resume` those of the run that its folder holds.

    Parameters
    ----------
    given : mapping
        The settings that were given, by their full keys; a file's among them.
    resolve : callable
        Returns all settings of a run from those of the folder, if any, and those that were given, which win.
    adjustable : bool
        Whether settings that are declared adjustable may differ from the run's, in addition to those that do not
        change a result.

    Raises
    ------
    SettingError
        As `resolve` does; and if a given setting differs from the run's.
    """
    if not given.get("run.resume"):
        return resolve({}, given)
    out = str(given.get("run.out", ""))
    if not out:
        raise SettingError("out must be given with resume: it is the folder of the run")
    path = Path(out).expanduser() / CHECKPOINT / CONFIG
    if not path.exists():  # killed before it started, or the first of several attempts
        return resolve({}, given)
    saved = json.loads(path.read_bytes())
    settings = resolve(saved, given)
    declared = RunSettings.schema().declared
    for key, (before, after) in differences(saved, settings).items():
        rule = declared[key].option if key in declared else None
        if rule is None or (rule.changes_result and not (adjustable and rule.adjustable)):
            name = key.rpartition(".")[2]
            raise SettingError(f"{name} must be that of the run in {out}, {before!r}, got {after!r}")
    return settings


def differences(saved: Mapping[str, Any], settings: RunSettings) -> dict[str, tuple[Any, Any]]:
    """Return the values that differ between a stored configuration and `settings`, before and after, by full key."""
    before, after = RunSettings.from_config(saved).to_config(), settings.to_config()
    return {key: (before.get(key), value) for key, value in after.items() if value != before.get(key)}
