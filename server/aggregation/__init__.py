"""Aggregation: the replies of a round in, the next model out, averaged as they are decoded.

`client_update.py` is one node's reply, `aggregate.py` makes the model of them, `coverage.py` averages parts of a model,
`consistency.py` leaves out replies that the strategy cannot average, `privacy.py` has the rules for flwr's wrappers for
differential privacy. A new way to aggregate goes into `aggregate.py`.
"""
