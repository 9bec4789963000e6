"""Range asymmetric numeral systems (rANS), Duda 2013, https://arxiv.org/abs/1311.2540.

Several interleaved coders, called lanes, take the tokens in turn and share one stream of words, Giesen 2014,
https://arxiv.org/abs/1402.3392. A lane's state is an integer in [2**16, 2**32); words have 16 bits. All arithmetic is
on integers, so decoding gives the same tokens on every machine.

A lane's initial state is 2**16 plus 16 bits of other data, which decoding returns at its end (bits back, Townsend et
al. 2019, https://arxiv.org/abs/1901.04866), so that many lanes cost few bytes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.entropy.frequency_tables import FrequencyTables
from fedpress.compression.frame import ByteReader, put_varint

_LOW = 1 << 16  # the smallest state
_WORD = 16  # bits of a word
MAX_LANES = 4096  # of a frame
_WORTH = 48  # lanes from which numpy is faster than a plain loop over one
_PER_LANE = 1024  # bytes of output that pay for one more lane, which costs about three,
_PER_CARRIER = 512  # or one if it carries spare bytes,
_ENOUGH = 1024  # lanes from which more are not faster
_MOST_ALONE = 1 << 20  # most tokens of a single lane, and
_MOST_TURNS = 1 << 16  # of each of many, which bounds the time for a frame
_BLOCK = 1 << 16  # tokens per block


def encode(
    tokens: NDArray[np.uint8],
    contexts: NDArray[np.uint8],
    tables: FrequencyTables,
    spare: bytes,
    out: bytearray,
    rows: Sequence[int] | None = None,
) -> int:
    """Append the encoding of `tokens` under the tables of their `contexts`; return the bytes of `spare` it carries.

    Parameters
    ----------
    spare : bytes
        Bytes that initial states can carry.
    rows : sequence of int | None
        Number of tokens of each call that decodes them; None for a single call.
    """
    nbytes = tables.cost(tokens, contexts) / 8
    wanted = min(int(max(nbytes / _PER_LANE, min(len(spare) // 2, nbytes / _PER_CARRIER))), _ENOUGH)
    if wanted < _WORTH and tokens.size <= _MOST_ALONE:
        lanes = 1
    else:
        lanes = min(max(wanted, _WORTH, -(-tokens.size // _MOST_TURNS)), MAX_LANES)
    carried = min(len(spare) // 2, lanes)
    states = np.full(lanes, _LOW, np.uint32)
    states[:carried] += np.frombuffer(spare[: 2 * carried], "<u2")
    if lanes == 1:
        words = _encode_lane(tokens, contexts, tables, states)
    else:
        words = _encode_lanes(tokens, contexts, tables, states, rows or [tokens.size])
    put_varint(out, lanes)
    out += states.astype("<u4").tobytes()
    put_varint(out, words.size)
    out += words.astype("<u2").tobytes()
    return 2 * carried


def _encode_lane(
    tokens: NDArray[np.uint8], contexts: NDArray[np.uint8], tables: FrequencyTables, states: NDArray[np.uint32]
) -> NDArray[np.uint16]:
    """Return the words, and leave the final state in `states`."""
    precision = tables.precision
    limit = 32 - precision  # a state must stay below frequency << limit for the next one to fit into 32 bits
    state = int(states[0])
    words: list[int] = []
    frequency, start = (part[contexts, tokens][::-1].tolist() for part in (tables.frequency, tables.start))
    for f, c in zip(frequency, start, strict=True):
        if state >= f << limit:
            words.append(state & 0xFFFF)
            state >>= _WORD
        state = (state // f << precision) + state % f + c
    states[0] = state
    return np.array(words[::-1], np.uint16)


def _encode_lanes(
    tokens: NDArray[np.uint8],
    contexts: NDArray[np.uint8],
    tables: FrequencyTables,
    states: NDArray[np.uint32],
    rows: Sequence[int],
) -> NDArray[np.uint16]:
    """Return the words, and leave the final states in `states`."""
    lanes, precision, word = states.size, np.uint32(tables.precision), np.uint32(_WORD)
    # The largest state that takes no word: up to it the next one fits into 32 bits.
    most = ((tables.frequency.astype(np.uint64) << np.uint64(32 - tables.precision)) - np.uint64(1)).astype(np.uint32)
    chunks: list[NDArray[np.uint16]] = []
    stride = max(1, _BLOCK // lanes) * lanes
    end = tokens.size
    for size in reversed(rows):
        for block in range((size - 1) // stride * stride, -1, -stride):
            part = slice(end - size + block, min(end, end - size + block + stride))
            at = contexts[part], tokens[part]
            frequency, start, top = tables.frequency[at], tables.start[at], most[at]
            for first in range((frequency.size - 1) // lanes * lanes, -1, -lanes):
                f = frequency[first : first + lanes]
                x = states[: f.size]  # a view: the last one may be shorter
                full = x > top[first : first + lanes]
                chunks.append(x[full].astype(np.uint16))
                np.right_shift(x, word, out=x, where=full)
                whole = x // f
                x += start[first : first + lanes]
                x += ((np.uint32(1) << precision) - f) * whole  # whole << precision, less whole * f
        end -= size
    return np.concatenate([*chunks[::-1], np.zeros(0, np.uint16)])


def decode(
    reader: ByteReader, contexts: NDArray[np.uint8], runs: NDArray[np.int64], tables: FrequencyTables
) -> tuple[NDArray[np.uint8], bytes]:
    """Return the tokens that were encoded, `runs[i]` of them under each context, and the bytes that lanes carried."""
    count = int(runs.sum())
    decoder = Decoder(reader, tables, count)
    tokens = np.empty(count, np.uint8)
    ends = np.cumsum(runs)
    stride = max(1, _BLOCK // decoder.lanes) * decoder.lanes
    for block in range(0, count, stride):
        part = tokens[block : block + stride]
        part[:] = decoder.take(_spread(contexts, ends, block, block + part.size))
    return tokens, decoder.end()


def _spread(contexts: NDArray[np.uint8], ends: NDArray[np.int64], start: int, stop: int) -> NDArray[np.uint8]:
    """Return the context of each token from `start` to `stop`, where run i ends at `ends[i]`."""
    first, last = np.searchsorted(ends, [start, stop - 1], side="right")
    edges = np.concatenate([[start], np.clip(ends[first : last + 1], start, stop)])
    inner = edges[1:] - edges[:-1]
    return np.repeat(contexts[first : last + 1], inner)


class Decoder:
    """Decodes tokens row by row: the contexts of one may depend on those before it."""

    def __init__(self, reader: ByteReader, tables: FrequencyTables, count: int) -> None:
        """Read the encoding of `count` tokens."""
        self.lanes = reader.varint(MAX_LANES)
        if not (self.lanes == 1 or self.lanes >= _WORTH):
            raise FrameError(f"a coder must have one lane, or {_WORTH} to {MAX_LANES}, got {self.lanes}")
        if self.lanes < MAX_LANES and count > (_MOST_ALONE if self.lanes == 1 else self.lanes * _MOST_TURNS):
            raise FrameError(f"a coder of {self.lanes} lanes must have fewer tokens, got {count}")
        self._states = np.frombuffer(reader.take(4 * self.lanes), "<u4").astype(np.uint32)
        if (self._states < _LOW).any():
            raise FrameError(f"a lane's state must be at least {_LOW}")
        words = reader.varint(min(2 * count + 2, _MOST_ALONE // 8 if self.lanes == 1 else 2 * count + 2))
        self._words = np.frombuffer(reader.take(2 * words), "<u2")
        self._at = 0
        self._precision = tables.precision
        if self.lanes == 1:
            self._list = self._words.tolist()
            self._lists = list(
                zip(map(bytes, tables.tokens()), tables.frequency.tolist(), tables.start.tolist(), strict=True)
            )
        else:
            self._token, self._frequency, self._offset = (part.reshape(-1) for part in tables.slots())

    def take(self, contexts: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the next tokens, one for each context; raise FrameError if the words run out."""
        return self._take_lane(contexts) if self.lanes == 1 else self._take_lanes(contexts)

    def end(self) -> bytes:
        """Return the bytes that the lanes carried; raise FrameError if the coder does not end in its initial state."""
        if self._at != self._words.size or (self._states >= 2 * _LOW).any():
            raise FrameError("the coder must end in its initial state")
        return (self._states - np.uint32(_LOW)).astype("<u2").tobytes()

    def _take_lane(self, contexts: NDArray[np.uint8]) -> NDArray[np.uint8]:
        precision, mask = self._precision, (1 << self._precision) - 1
        lists = self._lists
        tokens = bytearray(contexts.size)
        state, at, words = int(self._states[0]), self._at, self._list
        for i, context in enumerate(contexts.tolist()):
            of_slot, frequency, start = lists[context]
            slot = state & mask
            token = tokens[i] = of_slot[slot]
            state = frequency[token] * (state >> precision) + slot - start[token]
            if state < _LOW:
                if at == len(words):
                    raise FrameError("the words of the coder must suffice for its tokens")
                state = state << _WORD | words[at]
                at += 1
        self._states[0] = state
        self._at = at
        return np.frombuffer(bytes(tokens), np.uint8)

    def _take_lanes(self, contexts: NDArray[np.uint8]) -> NDArray[np.uint8]:
        lanes, precision, mask = self.lanes, np.uint32(self._precision), np.uint32((1 << self._precision) - 1)
        index = contexts.astype(np.uint32) << precision  # of the table's first slot, then of the token's
        at = self._at
        for first in range(0, index.size, lanes):
            slot = index[first : first + lanes]
            x = self._states[: slot.size]  # a view: the last one may be shorter
            slot += x & mask
            x >>= precision
            x *= self._frequency.take(slot)
            x += self._offset.take(slot)
            low = np.flatnonzero(x < _LOW)
            if low.size:
                if at + low.size > self._words.size:
                    raise FrameError("the words of the coder must suffice for its tokens")
                x[low] = x[low] << np.uint32(_WORD) | self._words[at : at + low.size]
                at += low.size
        self._at = at
        return np.asarray(self._token.take(index), np.uint8)
