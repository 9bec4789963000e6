"""Coarser deltas for nodes that missed rounds: they take fewer bytes, and the next delta corrects their error."""
