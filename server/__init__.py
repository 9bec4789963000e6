"""The server's side: a strategy around any Flower strategy, so that what travels is frames.

In goes any flwr strategy; `Compressed` packs its messages into frames, unpacks and averages the replies one by one,
and keeps the ledger. `app.py` is our own ServerApp; `downlink.py` decides what each node is sent. A new way to
aggregate goes into `aggregate.py`. Nothing here knows the client's code or the simulator.
"""

from fedpress.server.compressed import Compressed

__all__ = ["Compressed"]
