"""The interface of an engine: what it is given, and what it does with it."""

from collections.abc import Mapping
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
        Nodes, at least 1.
    workers : int
        Processes that run ClientApps; 0 for as many as there are cores.
    run_config : mapping of str to str, int, float or bool
        Flower's run configuration, which both apps get.
    states : Path, optional
        Folder for the nodes' states, for an engine that can restore them.
    arrives : callable, optional
        Decides which replies are in time; all are if None.
    watching : context manager
        Entered before the ServerApp is called and left after it. It may start threads.
    """

    server_app: str
    client_app: str
    num_clients: int
    workers: int
    run_config: Mapping[str, str | int | float | bool]
    states: Path | None = None
    arrives: Arrives | None = None
    watching: AbstractContextManager[None] = field(default_factory=nullcontext)


class Engine(Protocol):
    """Runs a Flower ServerApp and its ClientApps on one machine."""

    def run(self, run: EngineRun) -> None:
        """Run the federation until its ServerApp returns. Results are what the apps write.

        Raises
        ------
        SettingError
            If the engine cannot run it as it is described.
        Exception
            Whatever the ServerApp raises.
        """
