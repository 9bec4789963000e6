"""The Flower mod: `ClientApp(mods=[compress()])` makes any app receive and send compressed models.

In goes a message with frames, out comes a reply with one frame; `mod.py` is the description of what a node does with a
request. `downlink.py` turns frames into the model, `uplink.py` the trained model into a frame, `node_state.py` is what
a node keeps in between, and `extension.py` the interface of features that join in. The messages themselves are types of
`fedpress.protocol`.
"""

from fedpress.client.mod.mod import compress

__all__ = ["compress"]
