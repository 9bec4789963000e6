"""The strategy: `Compressed` wraps any Flower strategy and runs its rounds with frames.

In go a strategy, codecs and extensions; out comes a strategy for a ServerApp. `compressed.py` is the class,
`round_loop.py` runs the rounds, `factory.py` builds the strategy of a run's configuration, `conflicts.py` checks which
extensions can be combined. Flower's strategies are in `flower_strategies.py`.
"""
