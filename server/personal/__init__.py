"""Layers that stay on the device, and what the models that they make are worth there.

In goes the model that a run begins with; `layers` takes out of it what no message carries, so that the rest of the
server never sees it. `finetune` lets nodes go on alone at the end. `spread` says what nodes' accuracies come to. A word
for a kind of layer is added in `words`.
"""
