"""A run of our own ServerApp: its configuration, its records, and how it is started as a bundle.

In goes a configuration, out comes a run's folder. `recorder.py` writes the folder, `configuration.py` reads files of
settings, `bundle.py` makes the files that a SuperLink takes, `launcher.py` starts processes that end with this one. A
new file of the folder goes into `recorder.py`.
"""
