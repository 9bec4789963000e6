"""Sparse training: which weights the federation prunes, when, and which it restores.

In goes the model after a round; out comes the same with its pruned weights marked as `compression/weight_masks.py`
reads them. `settings` says how many and when, `layer_densities` how many of each layer, `mask_updates` which; a new
rule for which goes there.
"""
