"""Codecs around a codec: error feedback, momentum correction, and presets.

In goes a codec, out comes a codec whose state holds more. `base.py` is their common class. A new one is one file with a
subclass, and one entry in `compression/registry.py`.
"""
