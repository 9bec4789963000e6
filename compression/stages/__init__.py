"""The stages, one file each: named streams in, named streams out, pure both ways.

`sparsify/`, `transform/`, `quantize/` and `lossless/` are the four kinds, in the order of a codec. A new stage is a
frozen dataclass in a file of its own, whose first line cites its paper, and one line of examples in
`compression/registry.py`; every law in tests/compression is then tested on it.
"""
