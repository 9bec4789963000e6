"""Personal layers: tensors that each node trains and keeps, and fine-tuning after the last round.

FedPer, Arivazhagan et al. 2019, https://arxiv.org/abs/1912.00818; with personal batch norms, FedBN, Li et al.
2021, https://arxiv.org/abs/2102.07623. `server` and `client` remove these tensors from the models that they send;
`client` adds the node's own to those that it receives; `messages` holds the records that are sent for it. Patterns
select the tensors (`tensor_patterns`). `finetune` lets nodes train the last model further.
"""
