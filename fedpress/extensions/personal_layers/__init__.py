"""Layers that stay on each node, and fine-tuning after the last round.

`server` takes the personal tensors out of what server and nodes exchange; patterns name them
(`compression/tensor_patterns.py`). `finetune` lets nodes train the last model further and reports their accuracies.
"""
