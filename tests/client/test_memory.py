"""Laws of a node's state: it follows the tensors that it belongs to, and no others."""

import numpy as np
import pytest
from flwr.app import RecordDict

from fedpress.client.mod.node_state import ClientState, adapt_state
from fedpress.compression import Layout, parse
from fedpress.protocol.messages import RECORD_NAME

CODEC = parse("ef | topk(0.5) | ans")


def layout(**shapes: tuple[int, ...]) -> Layout:
    return Layout.of({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


def test_a_residual_follows_its_tensor_and_restarts_where_the_shape_changed() -> None:
    old, new = layout(a=(2, 3), b=(4,), c=(2,)), layout(b=(4,), a=(1, 3), d=(2,))
    state = {"residual": np.arange(1, 13, dtype=np.float32)}
    kept = adapt_state(state, old, CODEC.init(new), new)
    assert kept["residual"].tolist() == [7, 8, 9, 10, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("values", [10, 0])
def test_a_state_of_another_size_restarts(values: int) -> None:
    same = layout(w=(3, 2), running_var=(4,))
    kept = adapt_state({"residual": np.ones(values, np.float32)}, same, CODEC.init(same), same)
    assert kept["residual"].tolist() == [0] * 6


def test_a_state_records_the_tensors_it_belongs_to() -> None:
    whole = layout(a=(2,), b=(3,))
    assert ClientState(layout=whole.text, tensors=whole.mask({"b"})).part == layout(b=(3,))
    assert ClientState().part == ClientState(layout="[", tensors=b"").part == Layout(())
    assert ClientState(layout=whole.text, tensors=b"\xff").part == Layout(())  # a mask of other tensors


@pytest.mark.parametrize("field", ["version", "turn"])
def test_a_state_of_another_version_is_dropped(field: str) -> None:
    state = RecordDict()
    ClientState(version=bytes(8), sent=bytes(8)).save(state)
    assert ClientState.load(state).version == bytes(8)
    del state.config_records[RECORD_NAME][field]
    assert ClientState.load(state) == ClientState()
