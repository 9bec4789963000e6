"""`fedpress compare`: compares methods under equal conditions, and their cost on a link.

A suite of candidates goes in; a folder with the runs and a report that opens offline comes out. `grid.py` lists the
runs, `executor.py` runs and caches them, `scores.py` and `measures.py` score them, `report.py` writes the page. A
Flower app takes part with one line in its ServerApp, `strategy = comparable(strategy, context)`. A new figure goes into
`plots.py`; a new suite that comes with fedpress is a TOML file here.
"""

from fedpress.simulations.compare.opt_in import comparable

__all__ = ["comparable"]
