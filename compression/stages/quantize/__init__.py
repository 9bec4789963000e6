"""Stages that quantize: floats in, integers and their scales out.

`step_search.py` is the base class of those that search for the step of a given error or size.
To add one, write a file with a frozen dataclass, with the paper in its first line, and an entry in
`compression/registry.py`.
"""
