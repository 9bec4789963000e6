"""The strategy: `Compressed` wraps any Flower strategy and runs its rounds with frames.

In go a strategy, codecs and extensions; out comes a strategy for a ServerApp. `compressed.py` is the class,
`factory.py` makes it from a run's configuration, `compatibility.py` refuses what does not go together. A Flower
strategy is added to `flower_strategies.py`.
"""
