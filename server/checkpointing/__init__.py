"""Checkpoints: the state of a run is written to disk after each round, and restored on resume.

In go objects of a strategy, out come files of arrays and JSON, written atomically before the next round is sent.
`files.py` writes and reads them, `object_state.py` converts an object's state to JSON and back, `recovery.py` resumes
a run. Nothing is pickled.
"""
