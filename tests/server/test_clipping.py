"""Laws of clipping: no round moves the model further than the bound, or in another direction."""

from itertools import pairwise

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

from fedpress.common.errors import SettingError
from fedpress.compression import Layout
from fedpress.compression.updates import difference
from fedpress.extensions.clipping.server import Clipping, norm_of
from fedpress.extensions.clipping.settings import ClippingSettings
from fedpress.protocol.arrays import model_record
from fedpress.server import Compressed


def steps(make_grid, model, *extensions: Clipping) -> list[dict[str, np.ndarray]]:
    """Return the change of the model in each of three rounds."""
    models = []
    strategy = Compressed(
        FedAvg(fraction_train=1.0, fraction_evaluate=0.0), up="none", down="none", extensions=extensions
    ).observe(lambda done: models.append(done.model))
    strategy.start(make_grid(4), model_record(model), num_rounds=3)
    layout = Layout.of(model)
    return [difference(new, old, layout) for old, new in pairwise(models)]


def test_a_longer_update_is_scaled_down_and_keeps_its_direction(make_grid, model) -> None:
    layout = Layout.of(model)
    free = steps(make_grid, model)
    bound = norm_of(free[0], layout) / 3
    clipped = steps(make_grid, model, Clipping(ClippingSettings(norm=bound)))
    assert all(norm_of(step, layout) == pytest.approx(bound, rel=1e-4) for step in clipped)
    for name in ("weight", "bias"):
        np.testing.assert_allclose(clipped[0][name], free[0][name] / 3, atol=1e-6)
    assert [step["steps"] for step in clipped] == [step["steps"] for step in free], "counters are no update"


def test_a_shorter_update_stays_as_it_is(make_grid, model) -> None:
    for one, other in zip(
        steps(make_grid, model), steps(make_grid, model, Clipping(ClippingSettings(norm=1e3))), strict=True
    ):
        np.testing.assert_equal(one, other)


def test_there_is_no_bound_by_default_and_none_below_zero() -> None:
    assert not ClippingSettings().active
    with pytest.raises(SettingError, match="norm"):
        ClippingSettings(norm=-1.0)
