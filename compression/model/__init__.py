"""Smaller models: fewer channels, lower ranks, shared weights, fewer layers. The one folder of compression with torch.

In go a model and the size wanted; out comes a `Plan`, which is JSON: how a smaller model is made from the workload's
own. `plan.apply(model)` makes it with its weights, `plan.build(model)` with room for them, to load a file into. A kind
of step is one file with a `Step` in it, and one entry in `plan.KINDS`.
"""

from fedpress.compression.model.plan import Plan
from fedpress.compression.model.step import Step

__all__ = ["Plan", "Step"]
