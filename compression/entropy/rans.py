"""Range asymmetric numeral systems (rANS), Duda 2013, https://arxiv.org/abs/1311.2540.

Several lanes, each a coder of its own, take the tokens in turn and share one stream of words, Giesen 2014,
https://arxiv.org/abs/1402.3392. A lane's state is an integer in [2**16, 2**32); words have 16 bits. All arithmetic is
on integers, so decoding gives the same tokens on every machine.

A lane begins at 2**16 plus 16 bits that the caller wants sent anyway, and gives them back at its end (bits back,
Townsend et al. 2019, https://arxiv.org/abs/1901.04866), so that many lanes cost next to nothing.
"""

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.entropy.table import Tables
from fedpress.compression.errors import FrameError
from fedpress.compression.frame import Reader, put_varint

_LOW = 1 << 16  # the smallest state
_WORD = 16  # bits of a word
MAX_LANES = 4096  # that a frame can have
_WORTH = 48  # lanes from which numpy is faster than a plain loop over one
_PER_LANE = 1024  # bytes of output that pay for one more lane, which costs about three,
_PER_CARRIER = 512  # or one if it carries spare bytes
_BLOCK = 1 << 16  # tokens whose contexts are spread out at a time


def encode(
    tokens: NDArray[np.uint8], contexts: NDArray[np.uint8], tables: Tables, nbytes: float, spare: bytes, out: bytearray
) -> int:
    """Append `tokens` as they are coded under the tables that `contexts` name, about `nbytes`.

    Return how many bytes of `spare` they carry.
    """
    wanted = int(max(nbytes / _PER_LANE, min(len(spare) // 2, nbytes / _PER_CARRIER)))
    lanes = min(wanted, MAX_LANES) if wanted >= _WORTH else 1
    carried = min(len(spare) // 2, lanes)
    states = np.full(lanes, _LOW, np.uint32)
    states[:carried] += np.frombuffer(spare[: 2 * carried], "<u2")
    code = _encode_lane if lanes == 1 else _encode_lanes
    states, words = code(tokens, contexts, tables, states)
    put_varint(out, lanes)
    out += states.astype("<u4").tobytes()
    put_varint(out, words.size)
    out += words.astype("<u2").tobytes()
    return 2 * carried


def decode(
    reader: Reader, contexts: NDArray[np.uint8], runs: NDArray[np.int64], tables: Tables
) -> tuple[NDArray[np.uint8], bytes]:
    """Return the next tokens, `runs[i]` of them under each context, and the bytes that their lanes carried."""
    count = int(runs.sum())
    lanes = reader.varint(MAX_LANES)
    if lanes < 1:
        raise FrameError("a coder has at least one lane")
    states = np.frombuffer(reader.take(4 * lanes), "<u4").astype(np.uint32)
    if (states < _LOW).any():
        raise FrameError("a lane's state is below its range")
    words = np.frombuffer(reader.take(2 * reader.varint(2 * count + 2)), "<u2")
    tokens = np.empty(count, np.uint8)
    used = (_decode_lane if lanes == 1 else _decode_lanes)(tokens, states, words, contexts, runs, tables)
    if used != words.size or (states >= 2 * _LOW).any():
        raise FrameError("the coder does not end where it began")
    return tokens, (states - _LOW).astype("<u2").tobytes()


Coded = tuple[NDArray[np.uint32], NDArray[np.uint16]]  # final states, words in the order of decoding


def _encode_lane(
    tokens: NDArray[np.uint8], contexts: NDArray[np.uint8], tables: Tables, states: NDArray[np.uint32]
) -> Coded:
    precision = tables.precision
    limit = 32 - precision  # a state must stay below frequency << limit for the next one to fit into 32 bits
    state = int(states[0])
    words: list[int] = []
    pairs = zip(
        tables.frequency[contexts, tokens][::-1].tolist(), tables.start[contexts, tokens][::-1].tolist(), strict=True
    )
    for f, start in pairs:
        if state >= f << limit:
            words.append(state & 0xFFFF)
            state >>= _WORD
        state = (state // f << precision) + state % f + start
    return np.array([state], np.uint32), np.array(words[::-1], np.uint16)


def _encode_lanes(
    tokens: NDArray[np.uint8], contexts: NDArray[np.uint8], tables: Tables, states: NDArray[np.uint32]
) -> Coded:
    lanes, precision = states.size, np.uint32(tables.precision)
    limit, word = np.uint32(32 - tables.precision), np.uint32(_WORD)
    # The largest state that takes no word: below it the next one fits into 32 bits.
    most = ((tables.frequency.astype(np.uint64) << limit) - 1).astype(np.uint32)
    chunks: list[NDArray[np.uint16]] = []
    stride = max(1, _BLOCK // lanes) * lanes
    for block in range((tokens.size - 1) // stride * stride, -1, -stride):
        at = contexts[block : block + stride], tokens[block : block + stride]
        frequency, start, top = tables.frequency[at], tables.start[at], most[at]
        for first in range((frequency.size - 1) // lanes * lanes, -1, -lanes):
            f = frequency[first : first + lanes]
            x = states[: f.size]  # a view: the last turn may be short
            full = x > top[first : first + lanes]
            chunks.append(x[full].astype(np.uint16))
            np.right_shift(x, word, out=x, where=full)
            whole = x // f
            x += start[first : first + lanes]
            x += ((np.uint32(1) << precision) - f) * whole  # whole << precision, less whole * f
    return states, np.concatenate([*chunks[::-1], np.zeros(0, np.uint16)])


def _decode_lane(
    tokens: NDArray[np.uint8],
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
    contexts: NDArray[np.uint8],
    runs: NDArray[np.int64],
    tables: Tables,
) -> int:
    precision, mask = tables.precision, (1 << tables.precision) - 1
    table = [(t.tolist(), f.tolist(), o.tolist()) for t, f, o in zip(*tables.slots(), strict=True)]
    stream = [*words.tolist(), -1]
    state = int(states[0])
    at = i = 0
    for context, run in zip(contexts.tolist(), runs.tolist(), strict=True):
        token_of, frequency_of, offset_of = table[context]
        for _ in range(run):
            slot = state & mask
            tokens[i] = token_of[slot]
            i += 1
            state = frequency_of[slot] * (state >> precision) + offset_of[slot]
            if state < _LOW:
                word = stream[at]
                if word < 0:
                    raise FrameError("the coder runs out of words")
                state = state << _WORD | word
                at += 1
    states[0] = state
    return at


def _decode_lanes(
    tokens: NDArray[np.uint8],
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
    contexts: NDArray[np.uint8],
    runs: NDArray[np.int64],
    tables: Tables,
) -> int:
    lanes, precision, mask = states.size, np.uint32(tables.precision), np.uint32((1 << tables.precision) - 1)
    token_of, frequency_of, offset_of = (array.reshape(-1) for array in tables.slots())
    ends = np.cumsum(runs)
    stream = words.astype(np.uint32)
    at = 0
    stride = max(1, _BLOCK // lanes) * lanes
    index = np.empty(min(stride, tokens.size), np.uint32)
    for block in range(0, tokens.size, stride):
        size = min(stride, tokens.size - block)
        base = _spread(contexts, ends, block, block + size).astype(np.uint32) << precision
        for first in range(0, size, lanes):
            x = states[: size - first]  # a view: the last turn may be short
            slot = np.bitwise_and(x, mask, out=index[first : first + x.size])
            slot += base[first : first + x.size]
            x >>= precision
            x *= frequency_of.take(slot)
            x += offset_of.take(slot)
            low = np.flatnonzero(x < _LOW)
            if low.size:
                if at + low.size > stream.size:
                    raise FrameError("the coder runs out of words")
                x[low] = x[low] << np.uint32(_WORD) | stream[at : at + low.size]
                at += low.size
        np.take(token_of, index[:size], out=tokens[block : block + size])
    return at


def _spread(contexts: NDArray[np.uint8], ends: NDArray[np.int64], start: int, stop: int) -> NDArray[np.uint8]:
    """Return the context of each token from `start` to `stop`, where run i ends at `ends[i]`."""
    first, last = np.searchsorted(ends, [start, stop - 1], side="right")
    inner = np.diff(np.clip(ends[first : last + 1], start, stop), prepend=start)
    return np.repeat(contexts[first : last + 1], inner)
