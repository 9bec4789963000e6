"""A deployed federation: a SuperLink of our own, a gate in front of it, and the run on it.

`supervise.py` is `fedpress server`. In go settings and a folder of keys; out comes a run's folder. `gate.py` is all
that is reachable from outside, `superlink.py` the process behind it, `control.py` our word to that process (flwr's
private names are touched there alone), `enrolled.py` who may take part. Another way to watch goes beside `metrics.py`.
"""
