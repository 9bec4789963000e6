"""The stages, one file each: named streams in, named streams out, pure both ways.

A new one is a frozen dataclass in a file of its own, whose first line cites its paper, and one line of examples in
`compression/registry.py`; every law in tests/compression is then tested on it.
"""
