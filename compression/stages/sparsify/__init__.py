"""Stages that keep a part of the values: floats in, the kept values and their positions out.

A new one is a frozen dataclass in a file of its own, whose first line cites its paper, and one line of examples in
`compression/registry.py`.
"""
