"""Federations on one machine: datasets, partitions, models, engines, comparison and reports.

`simulate(server_app, client_app, num_clients=100, workers=2)` runs any Flower apps in process; `fedpress simulate`
runs ours on real data. Everything here stands on the other rooms, and none of them knows it. A new dataset goes into
`workloads/`, a new engine into `engine/`.
"""

from fedpress.simulations.engine import simulate

__all__ = ["simulate"]
