"""The workloads: real data, its partition among nodes, and models for it.

`task(settings)` is the task of fedpress's Flower apps; it is made once per process. A workload is an object with
`models`, `defaults` and `load`; built-in ones are in the table below, one file each, others are entry points of
installed packages or named `package.module:object`.
"""

from functools import lru_cache

from fedpress.common.errors import FedpressError, SettingError
from fedpress.common.named import find_object
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
    """Return a workload, made if it is a class.

    Parameters
    ----------
    name : str
        A built-in one, one of an installed package, or `package.module:object`.

    Raises
    ------
    SettingError
        If it does not exist, or is no workload.
    FedpressError
        If its own code fails.
    """
    found = find_object("workload", name, WORKLOADS, "workloads")
    try:
        workload: Workload = found() if isinstance(found, type) else found
    except FedpressError:
        raise
    except Exception as error:  # its own code may raise anything
        raise FedpressError(f"workload {name!r} cannot be made: {type(error).__name__}: {error}") from error
    missing = [part for part in ("models", "defaults", "load") if not hasattr(workload, part)]
    if missing:
        raise SettingError(f"workload {name!r} lacks {', '.join(missing)}: see docs/how-to/workloads.md")
    return workload


def task(settings: RunSettings) -> WorkloadTask:
    """Return the task of a run, the same object each time in one process."""
    return _task(TaskTerms.of(settings))


@lru_cache(maxsize=1)
def _task(terms: TaskTerms) -> WorkloadTask:
    return make_task(find(terms.simulation.workload), terms)
