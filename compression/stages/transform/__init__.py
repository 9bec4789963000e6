"""Stages that rotate or factorize: floats in, floats out that are cheaper to quantize.

`rotated_quantizer.py` holds what those have in common that rotate and quantize at once. A new one is a frozen dataclass
in a file of its own, whose first line cites its paper, and one line of examples in `compression/registry.py`.
"""
