"""Laws of the messages: what one end writes the other end reads, and a bad field is refused by its name."""

from contextlib import suppress
from dataclasses import fields
from typing import Any

import pytest
from flwr.app import ConfigRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.client.mod.node_state import StateRecord
from fedpress.common.errors import FrameError
from fedpress.compression import read_codec
from fedpress.extensions.personal_layers.messages import PersonalLayersReply, PersonalLayersRequest
from fedpress.protocol.messages import (
    BaseRequest,
    DivergedReply,
    NodeDescription,
    NodeQuery,
    TrainReply,
    TrainRequest,
    extension_name,
    extension_record,
    read_reply,
    read_request,
)
from fedpress.protocol.typed_records import TypedRecord

REQUESTS, REPLIES = (NodeQuery, TrainRequest), (NodeDescription, TrainReply, BaseRequest, DivergedReply)
TYPES: tuple[type[TypedRecord], ...] = (*REQUESTS, *REPLIES, PersonalLayersRequest, PersonalLayersReply, StateRecord)
WHOLE = st.integers(0, 2**62)
VALUES = {
    "bytes": st.binary(max_size=8),
    "int": WHOLE,
    "float": st.floats(0, 1e9),
    "str": st.text(max_size=20),
    "bool": st.booleans(),
}
WRONG: dict[type, tuple[Any, ...]] = {
    bytes: ("text", 7, [b""]),
    int: (1.0, True, "1", b"1", [1]),
    float: (1, "soon", True),
    str: (b"text", 1),
    bool: (1, "True"),
    list: (b"", 1, "text", [True], [1.5]),
}


@st.composite
def instances(draw: st.DrawFn, kind: type[Any]) -> TypedRecord:
    """Any message of a type."""
    values: dict[str, Any] = {}
    for field in fields(kind):
        name = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", "")
        values[field.name] = draw(VALUES[name]) if name in VALUES else ()
    if kind is TrainRequest:
        lengths = draw(st.lists(WHOLE, max_size=3))
        values["frame_lengths"] = tuple(lengths)
        values["frame_specs"] = tuple(draw(VALUES["str"]) for _ in lengths)
        values["frame_tensors"] = tuple(draw(VALUES["bytes"]) for _ in lengths)
    made: TypedRecord = kind(**values)
    return made


def sent(record: ConfigRecord) -> ConfigRecord:
    """The record as it is after the network."""
    return ConfigRecord.inflate(record.deflate())


@pytest.mark.parametrize("kind", TYPES)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_message_comes_back_as_it_was(kind: type[TypedRecord], data: st.DataObject) -> None:
    message = data.draw(instances(kind))
    record = sent(message.to_record())
    assert kind.from_record(record) == message
    assert kind.from_record({**record, "another": 1}) == message
    for types, read in ((REQUESTS, read_request), (REPLIES, read_reply)):
        if kind in types:
            assert read(record) == message


@pytest.mark.parametrize("kind", [kind for kind in TYPES if fields(kind)])
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_a_bad_field_is_refused_by_name(kind: type[TypedRecord], data: st.DataObject) -> None:
    record = data.draw(instances(kind)).to_record()
    for field in fields(kind):
        with pytest.raises(FrameError, match=field.name):
            kind.from_record({name: value for name, value in record.items() if name != field.name})
        for wrong in WRONG[type(record[field.name])]:
            with pytest.raises(FrameError, match=field.name):
                kind.from_record({**record, field.name: wrong})


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from([*(field.name for kind in TYPES for field in fields(kind)), "kind", "other"]),
        st.one_of(
            *VALUES.values(), st.sampled_from(["query", "train", "node", "reply", "base", "diverged"]), st.lists(WHOLE)
        ),
    )
)
def test_whatever_is_read_is_a_message_or_refused(record: dict[str, Any]) -> None:
    for read in (read_request, read_reply, *(kind.from_record for kind in TYPES)):
        with suppress(FrameError):
            assert isinstance(read(record), TypedRecord)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_an_invalid_duration_is_zero(seconds: float) -> None:
    reply = TrainReply(b"", 0, b"", b"", seconds, seconds)
    assert TrainReply.from_record(reply.to_record()) == TrainReply(b"", 0, b"", b"", 0.0, 0.0)
    assert (reply.training_seconds, reply.coding_seconds) == (0.0, 0.0)


def test_frames_and_their_masks_go_together() -> None:
    request = {"frame_lengths": [3], "frame_specs": ["none"], "frame_tensors": [b""], "weight_mask_length": 0}
    good = {**_any_request(), **request}
    assert TrainRequest.from_record(good).frame_lengths == (3,)
    for bad in ({"frame_specs": []}, {"frame_tensors": []}, {"frame_lengths": [-3]}, {"weight_mask_length": -1}):
        with pytest.raises(FrameError, match=next(iter(bad))):
            TrainRequest.from_record({**good, **bad})


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (NodeDescription, "name", "9" * 5000),
        (NodeDescription, "version", bytes(9)),
        (TrainRequest, "nonce", bytes(17)),
        (TrainRequest, "up", "fp16 | " * 1000),
        (TrainRequest, "round", 2**63),
        (TrainReply, "answer", bytes(1000)),
        (BaseRequest, "turn", -1),
    ],
)
def test_lengths_and_counts_are_bounded(kind: type[TypedRecord], field: str, value: object) -> None:
    good = {
        **_any_request(),
        **NodeDescription(name="a", version=b"", width="", model="").to_record(),
        **TrainReply(
            version=b"", turn=0, tensors=b"", answer=b"", training_seconds=0.0, coding_seconds=0.0
        ).to_record(),
    }
    kind.from_record(good)
    with pytest.raises(FrameError, match=field):
        kind.from_record({**good, field: value})


def test_a_spec_from_outside_that_names_no_codec_is_a_broken_message() -> None:
    with pytest.raises(FrameError, match="garbage"):
        read_codec("garbage")


def test_a_request_is_not_read_as_a_reply() -> None:
    with pytest.raises(FrameError, match="kind"):
        read_reply(NodeQuery().to_record())
    with pytest.raises(FrameError, match="kind"):
        read_request({})


def test_extensions_have_separate_records() -> None:
    assert extension_name(extension_record("personal_layers")) == "personal_layers"
    assert [extension_name(name) for name in ("fedpress", "config", "other.personal_layers")] == ["", "", ""]


def _any_request() -> dict[str, Any]:
    record: dict[str, Any] = {}
    for field in fields(TrainRequest):
        record[field.name] = {"int": 0, "str": "", "bool": False, "bytes": b""}.get(
            getattr(field.type, "__name__", ""), []
        )
    return record
