"""Sparse training: the federation prunes its model gradually.

`server` holds the extension: it takes the model after a round and returns it with the pruned weights marked as
`compression/weight_masks.py` reads them. `settings` determines how many weights and when, `layer_densities` how many of
each layer, `mask_updates` which ones.
"""
