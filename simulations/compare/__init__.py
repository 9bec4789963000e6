"""`fedpress compare`: methods side by side, everything else equal, and what they cost on a link.

A suite of candidates goes in, a folder with the runs and a report comes out. A Flower app takes part with one line in
its ServerApp, `strategy = comparable(strategy, context)`. A suite that comes with fedpress is a TOML file here.
"""

from fedpress.simulations.compare.opt_in import comparable

__all__ = ["comparable"]
