"""The Flower mod: `ClientApp(mods=[compress()])` makes any app receive and send compressed models.

In goes a message with frames, out comes a reply with one frame. `downlink.py` turns frames into the model, `uplink.py`
the trained model into a frame, and `node_state.py` is what a node keeps in between. A new field of a message is read or
written there.
"""

from fedpress.client.mod.mod import compress

__all__ = ["compress"]
