"""The device's side: local training, the Flower mod that compresses, and what a node remembers.

In goes a Flower message with frames of the global model; out comes a reply whose update is one frame of bytes.
`compress()` is the mod for any ClientApp; `app.py` is our own ClientApp, `training.py` its trainer. A new optimiser or
schedule goes beside those there are. Nothing here knows the server or the simulator.
"""

from fedpress.client.mod import compress

__all__ = ["compress"]
