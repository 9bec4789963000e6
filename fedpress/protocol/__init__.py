"""The protocol of server and nodes: messages as types, and frames of models and updates, made and applied.

`messages.py` holds the messages, `typed_records.py` writes and reads them; `model_frames.py` makes and applies key
frames and deltas of models, `update_frames.py` frames of updates; `folding.py` folds a message's records into one, and
`packing.py` packs its fields.
A new field of a message goes into its class in `messages.py`, a record of an extension into the extension's package.
"""
