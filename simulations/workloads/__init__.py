"""The workloads: real data, and the models that suit it.

`task(run_config)` is what our Flower apps work on; it is made once a process. A workload is an object with `models`,
`defaults` and `load`; ours are in the table below, one file each, anybody's is named `package.module:object`.
"""

import pkgutil
from functools import lru_cache
from typing import Any

from fedpress.compression.errors import SettingError, unknown
from fedpress.simulations.workloads.digits import Digits
from fedpress.simulations.workloads.fashion import Fashion
from fedpress.simulations.workloads.places import Config
from fedpress.simulations.workloads.speeches import Speeches
from fedpress.simulations.workloads.task import Data, Examples, Task, Workload, cache_key, make_task
from fedpress.simulations.workloads.watch import Watch

__all__ = ["WORKLOADS", "Data", "Examples", "Task", "Workload", "find", "task"]

WORKLOADS: dict[str, Workload] = {
    "digits": Digits(),
    "fashion": Fashion(),
    "watch": Watch(),
    "speeches": Speeches(),
}


def find(name: str) -> Workload:
    """Return the workload `name`, ours or `package.module:object`; raise SettingError if there is none."""
    if name in WORKLOADS:
        return WORKLOADS[name]
    if ":" not in name:
        raise SettingError(f"{unknown('workload', name, WORKLOADS)}; yours is package.module:object")
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


def task(config: Config) -> Task:
    """Return the task of a run's configuration, the same object each time in one process."""
    return _task(cache_key(config))


@lru_cache(maxsize=1)
def _task(items: tuple[tuple[str, Any], ...]) -> Task:
    config = dict(items)
    return make_task(find(str(config["workload"])), config)
