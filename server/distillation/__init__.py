"""Distillation on the server: the models of a round teach their average, on data that no node need have.

`EnsembleDistillation` is what `Compressed(distil=...)` is given. Its parts can be used alone:
`ensemble_scores(teachers, x, weighing)` asks one teacher at a time, `teach(student, x, scores, ...)` trains any model
on the scores. A new weighing is a function in `teacher_weights.py`.
"""

from fedpress.server.distillation.delta_tuning import Tuning
from fedpress.server.distillation.distillation import EnsembleDistillation
from fedpress.server.distillation.ensemble import Teacher, ensemble_scores, scores_of
from fedpress.server.distillation.proxies import proxy_of
from fedpress.server.distillation.settings import Distilling
from fedpress.server.distillation.student_training import teach
from fedpress.server.distillation.teacher_weights import WEIGHINGS, Knows

__all__ = [
    "WEIGHINGS",
    "Distilling",
    "EnsembleDistillation",
    "Knows",
    "Teacher",
    "Tuning",
    "ensemble_scores",
    "proxy_of",
    "scores_of",
    "teach",
]
