"""Optional measures of a run: nodes' and groups' accuracies, rounds with distillation, the model made afterwards."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpress.common.checked_files import read_json
from fedpress.server.run.recorder import MODEL, RESULT


def measures(result: Mapping[str, Any], last: int, after: Path | None) -> dict[str, float]:
    """Return the optional measures of a run by name, with the unit in the name.

    Parameters
    ----------
    result : mapping of str to Any
        The content of the run's result.json.
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
    rows, final = result["rounds"], result["final"]
    for when, nodes in final.get("nodes", {}).items():
        found |= {f"nodes {when} tuning, {name}, %": 100 * nodes[name] for name in ("mean", "p10", "worst")}
    for name in final.get("groups", {}):
        scores = (row["groups"][name]["accuracy"] for row in rows[-last:])
        found[f"group {name}, %"] = 100 * statistics.fmean(scores)
    if any("distilled" in row for row in rows):
        found["rounds taught"] = sum(row["distilled"] for row in rows)
    if after is not None:
        made = read_json(after / RESULT)
        found["made model, %"] = 100 * made["final"]["accuracy"]
        found["made model, kB"] = (after / MODEL).stat().st_size / 1000
    return found
