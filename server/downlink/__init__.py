"""The downlink: the frames that bring each node to the current model.

In go the server's exact model and the version that a node holds; out come delta or key frames. `downlink.py` encodes
them, `model_store.py` keeps the models that nodes still hold, `models.py` is one downlink or one for each group of
nodes. A new way to choose frames goes into `downlink.py`.
"""
