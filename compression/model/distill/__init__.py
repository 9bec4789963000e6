"""Distillation into a student: a model of another size or kind, trained with a teacher.

`train_student(student, teacher, x, y, settings, rng)` trains the student in place, on inputs with or without targets.
Each part is one file: the loss, augmentation. To add one, write its file, give it a setting, and call it in
`training.py`. `score_matching.py` trains a model on scores that are given.
"""
