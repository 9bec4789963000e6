"""Optional measures of a run: those of its extensions, and the model made afterwards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpress.common.checked_files import read_json
from fedpress.server.run.recorder import MODEL, RESULT
from fedpress.settings.extension import ExtensionSettings


def measures(
    result: Mapping[str, Any], extensions: Sequence[ExtensionSettings], last: int, after: Path | None
) -> dict[str, float]:
    """Return the optional measures of a run by name, with the unit in the name.

    Parameters
    ----------
    result : mapping of str to Any
        The content of the run's result.json.
    extensions : sequence of ExtensionSettings
        The settings of its extensions; empty for a Flower app.
    last : int
        Number of the last rounds that means are taken over.
    after : Path | None
        The folder of the model that was made from the run's; None without one.

    Returns
    -------
    dict
        Accuracies in percent, sizes in kB; empty for a run without optional measures.
    """
    found: dict[str, float] = {}
    for extension in extensions:
        found |= extension.measures(result["rounds"], result["final"], last)
    if after is not None:
        made = read_json(after / RESULT)
        found["made model, %"] = 100 * made["final"]["accuracy"]
        found["made model, kB"] = (after / MODEL).stat().st_size / 1000
    return found
