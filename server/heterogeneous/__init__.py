"""Groups of nodes with models of different sizes in one federation.

In go the groups that a run's configuration names, and its task; out of `factory.py` comes a `Fleet`: a downlink for
each group, and one model of which all of theirs are parts, widths of one model (`widths.py`) or whole models side by
side (`architectures.py`). Another way is another `Fleet`. Nothing is imported here: `Compressed` needs no torch.
"""
