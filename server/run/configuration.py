"""The settings of a resumed run: those in its folder, and which of them may be changed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedpress.common.checked_files import read_json, write_json
from fedpress.common.errors import DataError, SettingError
from fedpress.common.files import resolved, set_aside
from fedpress.server.checkpointing.files import Checkpoints
from fedpress.server.checkpointing.recovery import part_of
from fedpress.server.run.recorder import CHECKPOINT, RECORDER, recorded
from fedpress.settings import RunSettings

CONFIG = "config.json"  # in the folder of checkpoints
_ROUNDS = "server.rounds"


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
    saved = _saved_config(resolved(Path(out)) / CHECKPOINT)
    if not saved:  # killed before it started, or the first of several attempts
        return resolve({}, given)
    settings = resolve(saved, given)
    declared = RunSettings.schema().declared
    for key, (before, after) in differences(saved, settings).items():
        if key == _ROUNDS:  # a finished run may be trained longer
            if after < before:
                raise SettingError(f"rounds must be at least {before}, those of the run in {out}, got {after}")
            continue
        rule = declared[key].option if key in declared else None
        if rule is None or (rule.changes_result and not (adjustable and rule.adjustable)):
            name = key.rpartition(".")[2]
            raise SettingError(f"{name} must be that of the run in {out}, {before!r}, got {after!r}")
    return settings


def has_run(folder: Path) -> bool:
    """Return whether a run that can be resumed is in `folder`."""
    checkpoints = folder / CHECKPOINT
    return (checkpoints / CONFIG).is_file() or any(checkpoints.glob("round-*"))


def save_config(folder: Path, settings: RunSettings) -> dict[str, tuple[Any, Any]]:
    """Write the settings of the run in `folder`, for `continue_run`; return those that differ from the stored ones."""
    saved = _saved_config(folder / CHECKPOINT)
    write_json(folder / CHECKPOINT / CONFIG, settings.to_config(), durable=True)
    return differences(saved, settings) if saved else {}


def differences(saved: Mapping[str, Any], settings: RunSettings) -> dict[str, tuple[Any, Any]]:
    """Return the values that differ between a stored configuration and `settings`, before and after, by full key."""
    before, after = RunSettings.from_config(saved).to_config(), settings.to_config()
    return {key: (before.get(key), value) for key, value in after.items() if value != before.get(key)}


def _saved_config(folder: Path) -> dict[str, Any]:
    """Return the settings of the run with checkpoints in `folder`; empty without any."""
    path = folder / CONFIG
    try:
        if path.exists():
            return {key: value for key, value in read_json(path).items() if "." in key}  # without the checksum
    except DataError as error:
        set_aside(path, error)
    saved = Checkpoints(folder).load() if folder.exists() else None
    config = recorded(part_of(saved, RECORDER))["config"] if saved else {}
    return {key: value for key, value in config.items() if "." in key}
