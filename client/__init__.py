"""The device's side: local training, the Flower mod that compresses, and a node's state.

In goes a Flower message with frames of the global model; out comes a reply whose update is one frame of bytes.
`compress()` is the mod for any ClientApp (`mod/`); `app.py` is our own ClientApp, `training/` its training loop. A new
optimizer or schedule goes into `training/`. Nothing here imports the server or the simulations.
"""

from fedpress.client.mod import compress

__all__ = ["compress"]
