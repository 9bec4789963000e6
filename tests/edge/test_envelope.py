"""Folding a message for the wire changes nothing but the number of its records."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedpress.common.errors import FrameError
from fedpress.protocol.folding import FRAMES, fold, unfold
from fedpress.protocol.messages import FRAME_STYPE, RECORD_NAME


def a_content(size: int, *, more: bool = False) -> RecordDict:
    frame = Array("uint8", (size,), FRAME_STYPE, bytes(size))
    content = {
        "model": ArrayRecord({"frame": frame}),
        "config": ConfigRecord({"round": 1, "a.b": "x", "0.a": [1, 2], "none": b""}),
        "empty": ConfigRecord(),
        RECORD_NAME: ConfigRecord({"ask": "work", "nonce": b"\0"}),
        "metrics": MetricRecord({"loss": 0.5, "counts": [1, 2]}),
    }
    if more:
        content["plain"] = ArrayRecord([np.ones(3)])
    return RecordDict(content)


@pytest.mark.parametrize("size", [0, 10, 5000])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("more", [False, True])
def test_a_content_comes_back_as_it_was(size: int, apart: bool, more: bool) -> None:
    content = a_content(size, more=more)
    fold(content, {} if apart else None)
    assert set(content) == {RECORD_NAME} | ({FRAMES} if apart and size > 4096 else set()) | (
        {"plain"} if more else set()
    )
    assert unfold(content)
    assert content == a_content(size, more=more)
    assert not unfold(content)


def test_a_long_record_stays_one_by_itself() -> None:
    """An extension sends the same frame to many nodes: the record is stored once."""
    content = a_content(10)
    content["fedpress.some"] = ConfigRecord({"frame": bytes(5000)})
    fold(content)
    assert set(content) == {RECORD_NAME, "fedpress.some"}
    assert unfold(content)
    assert content == RecordDict({**a_content(10), "fedpress.some": ConfigRecord({"frame": bytes(5000)})})


def test_what_has_nothing_to_fold_stays() -> None:
    content = RecordDict({RECORD_NAME: ConfigRecord({"ask": "who"})})
    fold(content)
    assert content == RecordDict({RECORD_NAME: ConfigRecord({"ask": "who"})})


@pytest.mark.parametrize(
    "fields",
    [
        {"folded": "model", "kinds": "f"},
        {"folded": ["model"], "kinds": "ff"},
        {"folded": ["model"], "kinds": "f"},
        {"folded": ["model"], "kinds": "x", "0.a": b""},
        {"folded": ["model"], "kinds": "f", "0.a": "text"},
        {"folded": ["model"], "kinds": "f", "0.a": b"", "0.b": b""},
        {"folded": ["model", "model"], "kinds": "cc"},
        {"folded": [RECORD_NAME], "kinds": "c"},
        {"folded": ["model"], "kinds": "m", "0.a": "text"},
        {"folded": ["model"]},
    ],
)
def test_what_was_not_folded_so_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises((FrameError, KeyError, TypeError, ValueError)):
        unfold(RecordDict({RECORD_NAME: ConfigRecord(fields)}))
