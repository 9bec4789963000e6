"""The settings of a resumed run: those in its folder, and which of them may be changed."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from fedpress.common.errors import SettingError
from fedpress.server.run.recorder import CHECKPOINT
from fedpress.settings import RunSettings

CONFIG = "config.json"  # in the folder of checkpoints


def continue_run(
    given: Mapping[str, Any],
    resolve: Callable[[Mapping[str, Any]], RunSettings],
    file: Mapping[str, Any],
    free: Collection[str] = (),
) -> RunSettings:
    """Return the settings of a new run, or with `resume` those of the run that its folder holds.

    Parameters
    ----------
    given : mapping
        The settings that were given, by their full keys.
    resolve : callable
        Returns all settings of a run from those that were given.
    file : mapping
        Settings of a file, by their full keys: those given and those of a resumed run take precedence.
    free : collection of str
        Settings that may differ from the run's, in addition to those that do not change a result.

    Raises
    ------
    SettingError
        As `resolve` does; and if a given setting differs from the run's.
    """
    chosen = {**file, **given}
    if not chosen.get("run.resume"):
        return resolve(chosen)
    out = str(chosen.get("run.out", ""))
    if not out:
        raise SettingError("out must be given with resume: it is the folder of the run")
    path = Path(out).expanduser() / CHECKPOINT / CONFIG
    if not path.exists():  # killed before it started, or the first of several attempts
        return resolve(chosen)
    saved = json.loads(path.read_bytes())
    settings = resolve({**file, **saved, **given})
    _require_same(settings, RunSettings.from_config(saved), out, free)
    return settings


def _require_same(wanted: RunSettings, saved: RunSettings, out: str, free: Collection[str]) -> None:
    declared, before = RunSettings.schema().declared, saved.to_config()
    for key, value in wanted.to_config().items():
        may_differ = key in free or (key in declared and not declared[key].option.changes_result)
        if not may_differ and value != before.get(key):
            name = key.rpartition(".")[2]
            raise SettingError(f"{name} must be that of the run in {out}, {before.get(key)!r}, got {value!r}")
