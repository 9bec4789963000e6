"""Distillation on the server: the models of a round teach their average, on data that no node need have.

`server` holds the extension. Its parts can be used alone: `ensemble_scores(teachers, x, weighing)` asks one teacher at
a time, `teach(student, x, scores, ...)` trains any model on the scores. A new weighing is a function in
`teacher_weights`. Nothing is imported here: the settings are needed where nothing is taught.
"""
