"""A package that adds a stage, a preset, a workload, a model and a strategy to fedpress."""
