"""The length of a message is that of what Flower lays out."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedpress.flower.message_size import message_nbytes
from fedpress.flower.runtime import identify, stamp


@pytest.mark.parametrize(
    "sizes", [[], [10], [4096], [5000], [70_000, 70_000], [3, 200_000], [5 << 20], [6 << 20], [25 << 20]]
)
def test_stand_ins_of_long_frames_do_not_change_the_message_size(sizes: list[int]) -> None:
    identify(1)
    rng = np.random.default_rng(0)
    arrays = {str(i): Array("uint8", (size,), "raw", rng.bytes(size)) for i, size in enumerate(sizes)}
    frames = {f"ä{i}" * (i + 1): rng.bytes(size) for i, size in enumerate(sizes)}
    config = ConfigRecord({"x": 1, "b": b"123", **frames})
    content = {"a": ArrayRecord(arrays), "c": config, "m": MetricRecord({"y": 0.5})}
    message = stamp(Message(RecordDict(content), 7, "train"), 1)
    size = message_nbytes(message)
    assert not any("_chunks" in array.__dict__ for array in arrays.values())
    assert size == sum(len(part.deflate()) for part in get_all_nested_objects(message).values())
