"""A run of fedpress's own ServerApp: its configuration, its result folder, and the bundle that starts it.

In goes a configuration, out comes a run's folder. `recorder.py` writes the folder, `configuration.py` reads files of
settings, `bundle.py` makes the files that a SuperLink runs, `launcher.py` starts processes that end with this one. A
new file of the folder goes into `recorder.py`.
"""
