"""Figures of `bench codec` that have closed forms."""

import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedpress.compression import Layout
from fedpress.simulations.bench.codec import (
    cosine,
    default_specs,
    entropy_ratios,
    gaussian_bound,
    laplacian_bound,
    measure,
    nmse,
)
from fedpress.simulations.bench.recorded_updates import RECORDINGS, record, recorded

UPDATES = Path(__file__).parents[1] / "data" / "updates"


def test_errors_and_bounds() -> None:
    a = np.array([3, 4], np.float32)
    assert nmse(a, np.array([3, 0], np.float32)) == pytest.approx(16 / 25)
    assert cosine(a, 2 * a) == pytest.approx(1)
    assert cosine(a, np.zeros(2, np.float32)) == 0
    assert gaussian_bound(0.25) == pytest.approx(1)
    assert gaussian_bound(2.0) == 0
    # The entropy of a Laplacian of scale b is log2(2 e b); a normal number of variance D has half log2(2 pi e D).
    b = np.full(10, 0.5)
    assert laplacian_bound(b, 0.01) == pytest.approx(math.log2(math.e) - 0.5 * math.log2(2 * math.pi * math.e * 0.01))
    assert laplacian_bound(b, 10.0) == 0


def test_real_updates_are_what_the_command_makes(tmp_path: Path) -> None:
    record(("digits",), tmp_path, lambda _: None)
    (again,) = recorded(tmp_path)
    kept = {name: update for name, update, _ in recorded(UPDATES)}
    assert set(kept) < set(RECORDINGS)
    assert again[0] == "digits"
    assert Layout.of(again[1]) == Layout.of(kept["digits"])
    side = again[2]
    assert side is not None
    assert Layout.of(side) == Layout.of(again[1])


@pytest.mark.parametrize("name", ["digits", "watch", "cnn", "gru"])
def test_contexts_pay_on_real_updates(name: str) -> None:
    update = load_file(UPDATES / f"{name}.safetensors")
    ratios = entropy_ratios(update)
    assert ratios["deadzone(bits=1.0)"] < (0.92 if name in ("cnn", "gru") else 0.95)  # the others are of a kilobyte
    assert ratios["topk(0.01) places"] < 1.02
    best, scalar = (measure(spec, update, 1).bytes for spec in ("best(nmse=0.1)", "deadzone(nmse=0.1) | ans"))
    assert best < scalar


def test_every_preset_is_measured() -> None:
    assert {"stc(0.01)", "best(nmse=0.1)", "fast(nmse=0.01)", "none", "eden(2)"} <= set(default_specs())
