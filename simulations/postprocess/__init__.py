"""Work on a finished run's folder: a smaller model, a student, files for devices.

In goes the folder of a run or of a model made from one (`run_folder.py`), out comes another with a report. Each
command, `shrink`, `distil` and `export`, has one module; a new command is a new module.
"""

from collections.abc import Callable

Progress = Callable[[str], None]  # shows a line of progress
