"""Clipping of a round's aggregated update on the server."""

import math

import numpy as np

from fedpress.compression import Layout, Update
from fedpress.compression.updates import apply, difference
from fedpress.extensions.clipping.settings import ClippingSettings
from fedpress.server.extension import BuildContext, Extension, RoundContext


class Clipping(Extension):
    """Scales a round's aggregated update down to the largest allowed norm and keeps its direction.

    Parameters
    ----------
    settings : ClippingSettings
        The largest norm.

    Examples
    --------
    >>> Clipping(ClippingSettings(norm=1.0)).settings.norm
    1.0
    """

    name = "clipping"
    settings: ClippingSettings

    def __init__(self, settings: ClippingSettings) -> None:
        self.settings = settings

    def after_aggregation(self, model: Update, context: RoundContext) -> Update:
        layout = context.models.layout
        update = difference(model, context.previous, layout)
        norm = norm_of(update, layout)
        if norm <= self.settings.norm:
            return model
        scale = self.settings.norm / norm
        clipped = {t.name: (update[t.name] * scale).astype(t.dtype) for t in layout.floating}
        return apply(context.previous, {**update, **clipped}, layout)


def norm_of(update: Update, layout: Layout) -> float:
    """Return the L2 norm of all floating-point tensors as one vector."""
    return math.sqrt(sum(float(np.square(update[t.name], dtype=np.float64).sum()) for t in layout.floating))


def build(settings: ClippingSettings, _: BuildContext) -> Clipping:
    """Return the extension that `settings` describe."""
    return Clipping(settings)
