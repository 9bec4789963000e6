"""Numerical algorithms of the stages: quantizers, rotations, factorizations, a root finder.

In go arrays and parameters, out come arrays; nothing here depends on frames or specs. One algorithm is one file whose
docstring cites its paper; the stage that uses it is in `compression/stages`.
"""
