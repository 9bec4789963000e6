"""Stages that turn floats into few levels: floats in, integers and their scales out.

`step_search.py` holds what those have in common that look for the step with a given error or size. A new one is a
frozen dataclass in a file of its own and one line of examples in `compression/registry.py`.
"""
