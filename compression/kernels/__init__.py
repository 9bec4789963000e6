"""The numerical algorithms behind the stages: quantizers, rotations, factorizations, a root finder.

In go arrays and parameters, out come arrays; nothing here knows streams, frames or specs. One algorithm is one file
whose docstring cites its paper. A new one goes beside them, and the stage that uses it into `compression/stages`.
"""
