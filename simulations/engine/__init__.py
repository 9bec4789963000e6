"""The engines: any Flower ServerApp and ClientApp, on one machine.

`simulate` runs them in process: the ServerApp here, ClientApps in worker processes that stay warm. `run_ray` runs the
same two under Flower's own simulation runtime. `find_engine` returns either as an `Engine` (`base.py`). A third engine
is a module with a class that has `run`, and an entry in `ENGINES`.
"""

import pkgutil
from collections.abc import Mapping

from fedpress.common.errors import SettingError, unknown
from fedpress.simulations.engine.base import Engine, EngineRun
from fedpress.simulations.engine.inprocess import Simulation, simulate

__all__ = ["ENGINES", "Engine", "EngineRun", "Simulation", "find_engine", "simulate"]

# Classes by name. They are imported when they are used: workers import this package, and few engines.
ENGINES: Mapping[str, str] = {
    "inprocess": "fedpress.simulations.engine.inprocess:InProcessEngine",
    "ray": "fedpress.simulations.engine.ray:RayEngine",
}


def find_engine(name: str) -> Engine:
    """Return an engine by its name.

    Parameters
    ----------
    name : str
        A key of `ENGINES`.

    Returns
    -------
    Engine
        The engine.

    Raises
    ------
    SettingError
        If the name is unknown.

    Examples
    --------
    >>> type(find_engine("inprocess")).__name__
    'InProcessEngine'
    """
    if name not in ENGINES:
        raise SettingError(unknown("engine", name, ENGINES))
    engine: Engine = pkgutil.resolve_name(ENGINES[name])()
    return engine
