"""What is said of codecs as codecs of updates is what they do."""

import numpy as np
import pytest

import fedpress
from fedpress.compression import Layout, parse
from fedpress.compression.registry import PRESETS, STAGES, examples
from fedpress.server.aggregation.codec_trials import try_codec

RECOMMENDED = set(fedpress.codecs(recommended=True))


def frame_bytes(spec: str) -> int:
    codec = parse(spec)
    matrix = {"weight": np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32)}
    return len(codec.encode(matrix, codec.init(Layout.of(matrix)), np.random.default_rng(0))[0])


@pytest.mark.parametrize("spec", [spec for spec in examples() if not spec.startswith(("best(nmse", "best(bytes"))])
def test_what_is_made_of_recommended_codecs_has_no_bias(spec: str) -> None:
    codec = parse(spec)
    if {part.partition("(")[0].strip() for part in str(codec).split("|")} <= RECOMMENDED:
        trials = try_codec(codec, count=32)
        assert trials is not None
        assert trials.mean_share / (codec.subspace_share or 1) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "spec", ["randk(0.1)", "qsgd(4)", "qsgd(1)", "fedpaq(4)", "terngrad", "ternary | ans", "eden(2)", "drive"]
)
def test_unbiased_codecs_that_are_not_recommended_take_more_bytes_than_best_of_their_error_or_one(spec: str) -> None:
    trials = try_codec(parse(spec), count=32)
    assert trials is not None
    assert frame_bytes(spec) > 1.25 * frame_bytes(f"best(noise={max(trials.mean_error, 1.0)})")


def test_a_stage_and_the_preset_of_its_name_have_the_same_verdict() -> None:
    for name in STAGES.keys() & PRESETS.keys():
        assert bool(STAGES[name].instead) == bool(PRESETS[name].instead)
