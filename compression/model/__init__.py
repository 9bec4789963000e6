"""Smaller models: from a model, or its weights, to one that a device can run.

The one place in `compression/` that may know torch; it knows nothing of Flower, clients or servers. One file for each
way to make a model smaller; what goes in is any `nn.Module`, and what it cannot handle it refuses in one line.
"""
