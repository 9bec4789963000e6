"""Stages that lose nothing: integers in, bytes out, and back.

They stand last in a codec: `ans` codes entropy, `pack` and `quad` pack bits, `zstd` is Zstandard. A new one is a frozen
dataclass in a file of its own and one line of examples in `compression/registry.py`.
"""
