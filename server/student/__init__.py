"""A student: a model of another size or kind, taught by a trained one.

`school(student, teacher, x, y, settings, rng)` trains the student in place, on inputs alone or with their targets. What
it is made of is one algorithm a file: answers, hints, a warm start, pictures moved about. To add one,
write its file, give it a setting, and call it in `schooling`.
"""

from fedpress.server.student.schooling import school
from fedpress.server.student.settings import Schooling
from fedpress.server.student.warm import warm_start

__all__ = ["Schooling", "school", "warm_start"]
