"""The server's side: a strategy around any Flower strategy, so that what travels is frames.

In goes any flwr strategy; `Compressed` (`strategy/`) packs its messages into frames, unpacks and averages the replies
one by one, and keeps the ledger. `app.py` is our own ServerApp. A feature of the round has a package in
`fedpress.extensions`. Nothing here imports the client or the simulations.
"""

from fedpress.server.strategy.compressed import Compressed

__all__ = ["Compressed"]
