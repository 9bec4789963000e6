"""Sparse training: the federation prunes its model gradually.

`server` holds the extension: in goes the model after a round, out comes the same with its pruned weights marked as
`compression/weight_masks.py` reads them. `settings` determines how many and when, `layer_densities` how many of each
layer, `mask_updates` which.
"""
