"""Fleets: devices of different sizes in one federation, each group with a model of its own.

In go the groups that a run's configuration names, and its task; out of `build.py` comes a `Fleet`, with which
`Compressed` keeps a downlink for each group and one model of the server's that all of theirs are parts of. The parts
are widths of one model (`widths.py`) or whole models side by side (`architectures.py`). Another way to lay models out
is another `Fleet`. Nothing is imported here: `Compressed` needs no torch.
"""
