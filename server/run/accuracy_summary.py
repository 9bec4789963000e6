"""What the nodes' accuracies come to: a mean hides the node for which the model is no good."""

from collections.abc import Collection

import numpy as np

_AT = {"p10": 10, "median": 50, "p90": 90}


def spread(accuracies: Collection[float]) -> dict[str, float | int]:
    """Return number, mean, worst and percentiles of the nodes' accuracies, each node counting alike."""
    values = np.array(list(accuracies), np.float64)
    found: dict[str, float | int] = {"nodes": len(values), "mean": float(values.mean()), "worst": float(values.min())}
    return found | {name: float(np.percentile(values, at)) for name, at in _AT.items()}
