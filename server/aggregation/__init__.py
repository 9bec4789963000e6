"""Aggregation: the replies of a round in, the next model out, averaged as they are decoded.

`client_update.py` is one node's reply, `contribution_bounds.py` bounds it, `aggregate.py` makes the model of all,
`coverage.py` averages parts of a model, `consistency.py` leaves out replies that the strategy cannot average,
`privacy.py` has the rules for flwr's wrappers for differential privacy, `coordinates.py` warns of codecs with which
strategies that compare value by value learn little. A new way to aggregate goes into `aggregate.py`.
"""
