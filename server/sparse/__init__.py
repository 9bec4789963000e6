"""Sparse training: which weights the federation gives up, and when.

In goes the model after a round; out comes the same with its dead weights marked as `compression/sparse.py` reads them.
`settings` says how many and when, `shares` how many of each layer, `masks` which; a new rule for which goes there.
"""
