"""The engines: any Flower ServerApp and ClientApp, on one machine.

`simulate` runs them in process: the ServerApp here, ClientApps in worker processes that stay warm. `run_ray` runs the
same two under Flower's own simulation runtime. `find_engine` returns either as an `Engine` (`base.py`). A third engine
is a module with a class that has `run`, and an entry in `ENGINES`.
"""

from collections.abc import Mapping

from fedpress.common.errors import SettingError, unknown
from fedpress.simulations.engine.base import Engine, EngineRun
from fedpress.simulations.engine.inprocess import InProcessEngine, Simulation, simulate
from fedpress.simulations.engine.ray import RayEngine

__all__ = ["ENGINES", "Engine", "EngineRun", "Simulation", "find_engine", "simulate"]

ENGINES: Mapping[str, Engine] = {"inprocess": InProcessEngine(), "ray": RayEngine()}


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
    return ENGINES[name]
