"""Benchmarks: time, memory and bytes, as ratios of contenders measured in one run.

Machines are noisy, so results are ratios and not only times. Each contender runs in a separate process, which is
measured from outside. Add a benchmark as one file with a function that the command line calls.
"""
