"""`fedpress compare`: codecs side by side, everything else equal, and their cost on a link.

In go specs, seeds and a workload; out comes a report that opens offline. `grid.py` lists the runs, `executor.py` runs
and caches them, `scores.py` rates them, `report.py` writes the page. A new figure goes into `plots.py`.
"""
