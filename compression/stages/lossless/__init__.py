"""Lossless stages, the last ones of a codec: integers in, bytes out.

`ans` is an entropy coder, `pack` and `quad` pack bits, `zstd` is Zstandard.
To add one, write a file with a frozen dataclass, with the paper in its first line, and an entry in
`compression/registry.py`.
"""
