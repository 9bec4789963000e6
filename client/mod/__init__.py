"""The Flower mod: `ClientApp(mods=[compress()])` makes any app receive and send compressed models.

In goes a message with frames, out comes a reply with one frame; `mod.py` handles a request. `downlink.py` decodes
frames to the model, `uplink.py` encodes the trained model, `node_state.py` is the state of a node between messages,
and `extension.py` the interface of features. The messages are types of `fedpress.protocol`.
"""

from fedpress.client.mod.mod import compress

__all__ = ["compress"]
