"""Smaller models: fewer channels, lower ranks, shared weights, fewer layers. The one folder of compression with torch.

In go a model and a target; out comes a `Plan`, the steps from the workload's model to a smaller one, as JSON.
`plan.apply(model)` returns the smaller model with its weights, `plan.build(model)` an uninitialised one, to load a file
into. A kind of step is one file with a `Step` in it, and one entry in `plan.KINDS`. Nothing is imported here, so that
settings can be read without torch.
"""
