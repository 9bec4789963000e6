"""Range asymmetric numeral systems (rANS), Duda 2013, https://arxiv.org/abs/1311.2540.

Several lanes, each a coder of its own, take the tokens in turn and share one stream of words, Giesen 2014,
https://arxiv.org/abs/1402.3392. A lane's state is an integer in [2**16, 2**32); words have 16 bits. All arithmetic is
on integers, so decoding gives the same tokens on every machine.
"""

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.entropy.table import Table
from fedpress.compression.errors import FrameError
from fedpress.compression.frame import Reader, put_varint

_LOW = 1 << 16  # the smallest state
_WORD = 16  # bits of a word
MAX_LANES = 1024  # that a frame can have
_FEW = 20_000  # tokens up to here are coded in one lane: numpy's overhead a step would cost more than it saves
_PER_LANE = 512  # bytes of output that pay for one more lane, which costs about two


def encode(tokens: NDArray[np.uint8], table: Table, nbytes: float, out: bytearray) -> None:
    """Append `tokens`, none of frequency 0, as they are coded under `table`; about `nbytes` are expected."""
    lanes = 1 if tokens.size <= _FEW else int(np.clip(nbytes / _PER_LANE, 1, MAX_LANES))
    states, words = _encode_lane(tokens, table) if lanes == 1 else _encode_lanes(tokens, table, lanes)
    put_varint(out, lanes)
    out += states.astype("<u4").tobytes()
    put_varint(out, words.size)
    out += words.astype("<u2").tobytes()


def decode(reader: Reader, count: int, table: Table) -> NDArray[np.uint8]:
    """Return the next `count` tokens; raise FrameError if the coder does not end where it began."""
    lanes = reader.varint(MAX_LANES)
    if lanes < 1:
        raise FrameError("a coder has at least one lane")
    states = np.frombuffer(reader.take(4 * lanes), "<u4")
    if (states < _LOW).any():
        raise FrameError("a lane's state is below its range")
    words = np.frombuffer(reader.take(2 * reader.varint(2 * count + 2)), "<u2")
    return (
        _decode_lane(int(states[0]), words, count, table) if lanes == 1 else _decode_lanes(states, words, count, table)
    )


def _encode_lane(tokens: NDArray[np.uint8], table: Table) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    frequency, start = table.frequency.tolist(), table.start.tolist()
    precision = table.precision
    limit = 32 - precision  # a state must stay below frequency << limit for the next one to fit into 32 bits
    state = _LOW
    words: list[int] = []
    for token in reversed(tokens.tolist()):
        f = frequency[token]
        if state >= f << limit:
            words.append(state & 0xFFFF)
            state >>= _WORD
        state = (state // f << precision) + state % f + start[token]
    return np.array([state], np.uint32), np.array(words[::-1], np.uint16)


def _decode_lane(state: int, words: NDArray[np.uint16], count: int, table: Table) -> NDArray[np.uint8]:
    slots, frequency, start = _slots(table).tolist(), table.frequency.tolist(), table.start.tolist()
    precision, mask = table.precision, (1 << table.precision) - 1
    stream = words.tolist()
    tokens = bytearray(count)
    at, end = 0, len(stream)
    for i in range(count):
        slot = state & mask
        token = slots[slot]
        tokens[i] = token
        state = frequency[token] * (state >> precision) + slot - start[token]
        if state < _LOW:
            if at == end:
                raise FrameError("the coder runs out of words")
            state = state << _WORD | stream[at]
            at += 1
    if state != _LOW or at != end:
        raise FrameError("the coder does not end where it began")
    return np.frombuffer(bytes(tokens), np.uint8)


def _encode_lanes(tokens: NDArray[np.uint8], table: Table, lanes: int) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    frequency = table.frequency.astype(np.uint64)[tokens]
    start = table.start.astype(np.uint64)[tokens]
    precision, limit, word = np.uint64(table.precision), np.uint64(32 - table.precision), np.uint64(_WORD)
    states = np.full(lanes, _LOW, np.uint64)
    chunks: list[NDArray[np.uint16]] = []
    for first in range((tokens.size - 1) // lanes * lanes, -1, -lanes):
        f, c = frequency[first : first + lanes], start[first : first + lanes]
        x = states[: f.size]  # a view: the last turn may be short
        full = x >= f << limit
        chunks.append(x[full].astype(np.uint16))
        x[full] >>= word
        whole = x // f
        x[:] = (whole << precision) + (x - whole * f) + c
    return states.astype(np.uint32), np.concatenate(chunks[::-1])


def _decode_lanes(
    initial: NDArray[np.uint32], words: NDArray[np.uint16], count: int, table: Table
) -> NDArray[np.uint8]:
    slots = _slots(table)
    frequency, start = table.frequency.astype(np.uint64), table.start.astype(np.uint64)
    precision, mask, word = np.uint64(table.precision), np.uint64((1 << table.precision) - 1), np.uint64(_WORD)
    states = initial.astype(np.uint64)
    stream = words.astype(np.uint64)
    tokens = np.empty(count, np.uint8)
    at = 0
    for first in range(0, count, states.size):
        x = states[: count - first]  # a view: the last turn may be short
        slot = x & mask
        token = slots[slot]
        tokens[first : first + x.size] = token
        x[:] = frequency[token] * (x >> precision) + slot - start[token]
        low = np.flatnonzero(x < _LOW)
        if at + low.size > stream.size:
            raise FrameError("the coder runs out of words")
        x[low] = x[low] << word | stream[at : at + low.size]
        at += low.size
    if (states != _LOW).any() or at != stream.size:
        raise FrameError("the coder does not end where it began")
    return tokens


def _slots(table: Table) -> NDArray[np.uint8]:
    """Return the token of each of the 2**precision slots."""
    return np.repeat(np.arange(table.frequency.size, dtype=np.uint8), table.frequency)
