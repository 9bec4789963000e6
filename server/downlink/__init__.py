"""The downlink: the frames that bring each node to the current model.

In go the server's exact model and the version that a node holds; out come frames. `downlink.py` is the interface,
`deltas.py` codes a delta for each node, `steps.py` one step a round for all; `model_store.py` keeps the models that
nodes still hold, `models.py` is one downlink or one for each group of nodes. A new way to choose frames is a new
`Downlink`.
"""
