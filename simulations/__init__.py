"""Federations on one machine: datasets, partitions, models, engines, comparison and reports.

`simulate(server_app, client_app, num_clients=100, workers=2)` runs any Flower apps in process; `fedpress simulate` runs
ours on real data. This package may import all others, and none of them imports it. A new dataset goes into
`workloads/`, a new engine into `engine/`.
"""

from fedpress.simulations.engine import simulate

__all__ = ["simulate"]
