"""Distillation on the server: the models of a round are the teachers of their average, on data from no node.

`server` holds the extension. Its parts can be used alone: `ensemble_scores(teachers, x, weighing)` evaluates one
teacher at a time, `match_scores` of `compression.model.distill` trains any model on the scores. A new weighing is a
function in `teacher_weights`. Nothing is imported here, so that reading the settings does not import torch.
"""
