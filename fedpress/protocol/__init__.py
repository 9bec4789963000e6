"""The messages between client and server: names of fields and records, and how a message is folded into one record.

In goes what one end has to say, out comes the record that the other end reads. `messages.py` lists every field. Nothing
here imports the client, the server or flwr's classes: callers pass those in. A new message goes into `messages.py`.
"""
