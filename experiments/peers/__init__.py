"""Published methods other than codecs, one a file: what both ends send, and how replies are aggregated.

`federation.py` runs each on the data, the nodes, the sampling and the ledger of fedpress, so that `fedpress compare`
ranks it among codecs: docs/results/peers.md. The next one is a class derived from `federation.Method`, and a line
`server_app, client_app = apps(Name)`.
"""
