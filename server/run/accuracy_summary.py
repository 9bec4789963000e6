"""Statistics of the nodes' accuracies: a mean alone hides nodes for which the model is poor."""

from collections.abc import Collection

import numpy as np

_PERCENTILES = {"p10": 10, "median": 50, "p90": 90}


def spread(accuracies: Collection[float]) -> dict[str, float | int]:
    """Return number, mean, worst and percentiles of the nodes' accuracies, each node with equal weight."""
    values = np.array(list(accuracies), np.float64)
    summary: dict[str, float | int] = {"nodes": len(values), "mean": float(values.mean()), "worst": float(values.min())}
    return summary | {name: float(np.percentile(values, q)) for name, q in _PERCENTILES.items()}
