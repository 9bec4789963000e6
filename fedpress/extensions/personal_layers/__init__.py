"""Personal layers: tensors that stay on each node, which continues from its own, and fine-tuning after the last round.

FedPer, Arivazhagan et al. 2019, https://arxiv.org/abs/1912.00818; with batch norm for what stays, FedBN, Li et al.
2021, https://arxiv.org/abs/2102.07623. `server` takes these tensors out of what is exchanged, `client` out of models
that leave a node, and puts them into those that arrive; `messages` holds the records that are sent for it. Patterns
name the tensors (`compression/tensor_patterns.py`). `finetune` lets nodes train the last model further.
"""
