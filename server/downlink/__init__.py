"""The downlink: which frames each node is sent so that it holds the current model.

In go the server's exact model and what a node holds; out come frames, deltas or a whole model. `downlink.py` codes
them, `model_store.py` keeps the models that nodes still hold, `models.py` is one downlink or one for each group of
nodes. A new way to choose frames goes into `downlink.py`.
"""
