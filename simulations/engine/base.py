"""The interface of an engine: a federation to run, and a method that runs it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fedpress.simulations.engine.grid import Arrives


@dataclass(frozen=True)
class EngineRun:
    """A federation for an engine to run.

    Parameters
    ----------
    server_app, client_app : str
        The two Flower apps, each named "module:object".
    num_clients : int
        Number of nodes, at least 1.
    workers : int
        Number of processes that run ClientApps; 0 for the number of cores.
    run_config : mapping of str to str, int, float or bool
        Flower's run configuration, for both apps.
    states : Path, optional
        Folder for the states of nodes, for an engine that can restore them.
    arrives : callable, optional
        Returns whether a reply is in time; all are if None.
    watching : context manager
        Entered before the ServerApp is called, and left after it. It may start threads.
    prepare : callable, optional
        Loads what ClientApps share, such as data, in a process from which others are forked.

    Examples
    --------
    >>> run = EngineRun("module:server", "module:client", num_clients=10, workers=0, run_config={"rounds": 3})
    >>> run.num_clients
    10
    """

    server_app: str
    client_app: str
    num_clients: int
    workers: int
    run_config: Mapping[str, str | int | float | bool]
    states: Path | None = None
    arrives: Arrives | None = None
    watching: AbstractContextManager[None] = field(default_factory=nullcontext)
    prepare: Callable[[], object] | None = None


class Engine(Protocol):
    """Runs a Flower ServerApp and its ClientApps on one machine.

    Examples
    --------
    >>> class DryRun:
    ...     def run(self, run: EngineRun) -> None:
    ...         print(f"{run.server_app}, {run.num_clients} nodes")
    >>> engine: Engine = DryRun()
    >>> engine.run(EngineRun("module:server", "module:client", num_clients=10, workers=0, run_config={}))
    module:server, 10 nodes
    """

    def run(self, run: EngineRun) -> None:
        """Run a federation until its ServerApp returns; results are what the apps write.

        Parameters
        ----------
        run : EngineRun
            The federation.

        Raises
        ------
        SettingError
            If the engine cannot run it.
        Exception
            Whatever the ServerApp raises.
        """
