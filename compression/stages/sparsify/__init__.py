"""Stages that keep some of the values: floats in, the kept values and their positions out.

To add one, write a file with a frozen dataclass, with the paper in its first line, and an entry in
`compression/registry.py`.
"""
