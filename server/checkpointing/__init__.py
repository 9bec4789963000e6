"""Checkpoints: the state of a run to disk after each round, and back.

In go objects of a strategy, out come files of arrays and JSON, written whole before the next round is sent. `files.py`
writes and reads them, `object_state.py` finds what of an object is state, `recovery.py` resumes a run. Nothing is
pickled.
"""
