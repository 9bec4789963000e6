"""The engines: any Flower ServerApp and ClientApp, on one machine.

`simulate` runs them in process: the ServerApp here, ClientApps in worker processes that stay warm. `run_ray` runs the
same two under Flower's own simulation runtime. In go two apps, out comes what the ServerApp left in its context. A
third engine goes beside the two.
"""

from fedpress.simulations.engine.inprocess import Simulation, simulate

__all__ = ["Simulation", "simulate"]
