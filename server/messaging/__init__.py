"""Messages to nodes and their replies, with the bytes of both.

In go requests, out come checked replies and entries in the ledger. `exchange.py` sends and receives a round's messages,
`named_grid.py` names the nodes, `node_state.py` holds the server's record of each, `ledger.py` counts bytes. A new kind
of message is a new module, like `node_evaluation.py`.
"""
