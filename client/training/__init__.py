"""Local training with torch: the loop, its settings, and schedules of the learning rate.

In go a model and a node's examples, out come the trained weights and their metrics. `loop.py` is the loop. A new
optimizer or schedule is one more case of the function that chooses them.
"""
