"""The workloads: real data, its partition among nodes, and models for it.

`task(settings)` is the task of fedpress's Flower apps; it is made once per process. A workload is an object with
`models`, `defaults` and `load`; built-in ones are in the table below, one file each, others are named
`package.module:object`.
"""

import pkgutil
from functools import lru_cache

from fedpress.common.errors import SettingError, unknown
from fedpress.settings import RunSettings
from fedpress.simulations.workloads.digits import Digits
from fedpress.simulations.workloads.fashion import Fashion
from fedpress.simulations.workloads.speeches import Speeches
from fedpress.simulations.workloads.task import Data, Examples, TaskTerms, Workload, WorkloadTask, make_task
from fedpress.simulations.workloads.watch import Watch

__all__ = ["WORKLOADS", "Data", "Examples", "TaskTerms", "Workload", "WorkloadTask", "find", "task"]

WORKLOADS: dict[str, Workload] = {
    "digits": Digits(),
    "fashion": Fashion(),
    "watch": Watch(),
    "speeches": Speeches(),
}


def find(name: str) -> Workload:
    """Return the workload `name`, built-in or `package.module:object`; raise SettingError if it does not exist."""
    if name in WORKLOADS:
        return WORKLOADS[name]
    if ":" not in name:
        raise SettingError(f"{unknown('workload', name, WORKLOADS)}, or your own as package.module:object")
    try:
        found: Workload = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(f"workload {name!r} cannot be imported: {error}") from error
    if isinstance(found, type):
        raise SettingError(f"workload {name!r} is a class: name an object of it")
    missing = [part for part in ("models", "defaults", "load") if not hasattr(found, part)]
    if missing:
        raise SettingError(f"workload {name!r} lacks {', '.join(missing)}: see docs/how-to/workloads.md")
    return found


def task(settings: RunSettings) -> WorkloadTask:
    """Return the task of a run, the same object each time in one process."""
    return _task(TaskTerms.of(settings))


@lru_cache(maxsize=1)
def _task(terms: TaskTerms) -> WorkloadTask:
    return make_task(find(terms.simulation.workload), terms)
