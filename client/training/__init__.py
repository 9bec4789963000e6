"""Local training with torch: the loop, its settings, and schedules of the learning rate.

In go a model and a node's examples, out come the trained weights and their metrics. `loop.py` is the loop. A new
optimizer or schedule is a function and an entry in the table beside those there are.
"""
