"""Distillation on the server: the round's models teach their average, on data that no node need have.

`EnsembleDistillation` is what `Compressed(distil=...)` is given. What it is made of stands alone, for fleets of several
architectures: `ensemble_scores(teachers, x, weighing)` asks teachers one at a time, `teach(student, x, scores, ...)`
trains any model on what they say. A new weighing is a function in `weighing.py`.
"""

from fedpress.server.distillation.distiller import EnsembleDistillation
from fedpress.server.distillation.ensemble import Teacher, ensemble_scores, scores_of
from fedpress.server.distillation.proxies import proxy_of
from fedpress.server.distillation.settings import Distilling
from fedpress.server.distillation.teaching import teach
from fedpress.server.distillation.tuning import Tuning
from fedpress.server.distillation.weighing import WEIGHINGS, Knows

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
