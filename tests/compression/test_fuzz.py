"""Frames that are broken on purpose; `scripts/fuzz` tries as many as you like."""

import importlib.util
from pathlib import Path

import pytest

found = importlib.util.spec_from_file_location("fuzz", Path(__file__).with_name("fuzz.py"))
fuzz = importlib.util.module_from_spec(found)
found.loader.exec_module(fuzz)


@pytest.mark.parametrize("frames", [6_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_broken_frames_raise_frame_error_or_decode_to_what_the_layout_holds(frames: int, tmp_path: Path) -> None:
    report = fuzz.fuzz(frames, 1, tmp_path / "failures", print)
    assert report.failures == []
    assert report.frames == frames
    assert report.outcomes["decoded"] > frames / 100
