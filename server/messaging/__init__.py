"""Messages to nodes and their replies: what is sent, what came back, and what it cost.

In go requests, out come checked replies and entries in the ledger. `exchange.py` sends and receives a round's messages,
`named_grid.py` knows nodes by name, `node_state.py` is what the server knows of each, `ledger.py` counts bytes. A new
kind of message goes beside `node_evaluation.py`.
"""
