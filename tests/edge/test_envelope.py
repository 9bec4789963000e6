"""Folding a message for the wire changes nothing but the number of its records."""

import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedpress.common.errors import FrameError
from fedpress.protocol.folding import FRAMES, fold, unfold
from fedpress.protocol.messages import FRAME_STYPE, RECORD_NAME, TrainReply
from fedpress.protocol.packing import pack, unpack


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
        {"folded": ["model"], "kinds": "c", "0.a": [1, "text"]},
        {"folded": ["model"], "kinds": "c", "a": [1, "text"]},
        {},
        {"folded": ["model", "other"], "kinds": "ff", "0": "a", "1": "b"},
        {"folded": ["model"], "kinds": "f", "0.a": b"", "0": "b"},
        {"folded": ["model", "model"], "kinds": "cc"},
        {"folded": [RECORD_NAME], "kinds": "c"},
        {"folded": ["model"], "kinds": "m", "0.a": "text"},
        {"folded": ["model"]},
    ],
)
def test_what_was_not_folded_so_is_refused(fields: dict[str, object]) -> None:
    content = a_content(10)
    fold(content)
    content[RECORD_NAME] = ConfigRecord({**content[RECORD_NAME], "packed": pack(fields)})
    with pytest.raises(FrameError):
        unfold(content)


VALUES = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(), st.binary(max_size=40)
)


@given(values=st.dictionaries(st.text(), st.one_of(VALUES, st.lists(VALUES, max_size=5))))
def test_packed_values_come_back_with_their_types(values: dict[str, Any]) -> None:
    back = unpack(pack(values))
    assert repr(back) == repr(values)


@given(values=st.dictionaries(st.text(), VALUES), data=st.data())
def test_changed_packed_values_are_refused_or_are_values(values: dict[str, Any], data: st.DataObject) -> None:
    packed = bytearray(pack(values))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    for broken in (bytes(packed), bytes(packed[: data.draw(st.integers(0, len(packed)))]), data.draw(st.binary())):
        with suppress(FrameError):
            assert all(isinstance(name, str) for name in unpack(broken))


def test_values_that_unfold_to_gigabytes_are_refused() -> None:
    press = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(press.compress(bytes(1 << 20)) for _ in range(64)) + press.flush()
    with pytest.raises(FrameError):
        unpack(bomb)


def test_a_message_has_few_bytes_beside_its_frame() -> None:
    reply = TrainReply(bytes(range(8)), 3, b"", bytes(range(16)), training_seconds=1.23, coding_seconds=0.12)
    content = RecordDict(
        {
            "arrays": ArrayRecord({"frame": Array("uint8", (126,), FRAME_STYPE, bytes(126))}),
            "metrics": MetricRecord({"num-examples": 600, "train_loss": 0.53, "steps": 60}),
            RECORD_NAME: reply.to_record(),
        }
    )
    fold(content)
    assert sum(len(value) for value in content[RECORD_NAME].values()) < 126 + 110
