"""The stages of codecs, one per file: named streams in, named streams out, as pure functions.

`sparsify/`, `transform/`, `quantize/` and `lossless/` are the four kinds, in the order of a codec. To add a stage,
write a file with a frozen dataclass, with the paper in its first line, and one entry in `compression/registry.py`; the
conformance tests in tests/compression then run on it.
"""
