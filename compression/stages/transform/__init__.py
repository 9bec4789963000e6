"""Stages that rotate or factorize: floats in, floats out that are cheaper to quantize.

`rotated_quantizer.py` is the base class of those that rotate and quantize at once.
To add one, write a file with a frozen dataclass, with the paper in its first line, and an entry in
`compression/registry.py`.
"""
