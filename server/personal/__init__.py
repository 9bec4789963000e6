"""Layers that stay on the device, and how accurate the models are that they make there.

In go the run's settings; `finetune` lets nodes train alone at the end, and `accuracy_summary` summarizes the nodes'
accuracies. Which tensors stay is said by patterns (`compression/tensor_patterns.py`), and `server/downlink` takes them
out of what is sent. A new setting goes into `settings.py`.
"""
