"""Benchmarks: what things cost, as ratios measured side by side in one run.

Machines are noisy, so a figure here is never a time alone. Each contender runs in a process of its own, which is
watched from outside. Add a benchmark as one file with a function that the command line calls.
"""
