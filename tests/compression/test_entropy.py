"""Laws of the entropy coder: what goes in comes out, in about as many bits as its entropy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from fedpress.compression.entropy import bits, integers, rans, tokens
from fedpress.compression.entropy.table import Table, fit
from fedpress.compression.errors import FrameError
from fedpress.compression.frame import Reader, put_varint

dtypes = st.sampled_from([np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64])


@given(nps.arrays(dtypes, st.integers(0, 300)))
def test_any_integers_come_back(array: np.ndarray) -> None:
    back = integers.decode(integers.encode(array), array.size)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(st.integers(0, 2**32), st.integers(1, 3000), st.floats(0, 30))
def test_skewed_integers_come_back(seed: int, size: int, spread: float) -> None:
    array = np.rint(np.random.default_rng(seed).laplace(0, spread, size)).astype(np.int32)
    np.testing.assert_array_equal(integers.decode(integers.encode(array), size), array)


@given(nps.arrays(np.uint64, st.integers(0, 200), elements=st.integers(0, 2**32 - 1)))
def test_tokens_and_raw_bits_are_the_number(numbers: np.ndarray) -> None:
    token, raw, width = tokens.split(numbers)
    np.testing.assert_array_equal(tokens.widths(token), width)
    np.testing.assert_array_equal(tokens.join(token, raw), numbers)
    assert token.max(initial=0) < tokens.COUNT


@given(nps.arrays(np.int64, st.integers(0, 99), elements=st.integers(-(2**31), 2**31 - 1)))
def test_folding_is_one_to_one(numbers: np.ndarray) -> None:
    np.testing.assert_array_equal(tokens.unfold(tokens.fold(numbers)), numbers)


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(0, 2**32))
def test_bits_come_back(widths: list[int], seed: int) -> None:
    width = np.array(widths, np.int64)
    numbers = np.random.default_rng(seed).integers(0, 2**40, width.size, dtype=np.uint64)
    numbers &= (np.uint64(1) << width.astype(np.uint64)) - np.uint64(1)
    data = bits.pack(numbers, width)
    assert len(data) == (sum(widths) + 7) // 8
    np.testing.assert_array_equal(bits.unpack(data, width), numbers)


@given(nps.arrays(np.int64, st.integers(1, 72), elements=st.integers(0, 10**6)))
def test_a_table_is_read_back(counts: np.ndarray) -> None:
    counts[0] += 1
    table = fit(counts)
    assert table.frequency.sum() == 1 << table.precision
    assert ((table.frequency > 0) == (np.trim_zeros(counts, "b") > 0)).all()
    out = bytearray()
    table.write(out)
    back = Table.read(Reader(bytes(out)), tokens.COUNT)
    assert back.precision == table.precision
    np.testing.assert_array_equal(back.frequency, table.frequency)


@pytest.mark.parametrize("lanes", [1, 2, 7, 64, 1024])
@pytest.mark.parametrize("size", [1, 6, 1000, 5003])
def test_any_number_of_lanes_codes_the_same_tokens(lanes: int, size: int) -> None:
    token = np.minimum(np.random.default_rng(size).geometric(0.4, size) - 1, 71).astype(np.uint8)
    table = fit(np.bincount(token))
    states, words = rans._encode_lane(token, table) if lanes == 1 else rans._encode_lanes(token, table, lanes)
    out = bytearray()
    put_varint(out, lanes)
    out += states.astype("<u4").tobytes()
    put_varint(out, words.size)
    out += words.astype("<u2").tobytes()
    np.testing.assert_array_equal(rans.decode(Reader(bytes(out)), size, table), token)
    if size > 1:  # one token that always comes takes no bits at all
        with pytest.raises(FrameError):
            rans.decode(Reader(bytes(out)), size + 1, table)


@pytest.mark.parametrize("spread", [0.15, 0.4, 1.0, 3.0, 40.0])
def test_the_size_is_the_entropy(spread: float) -> None:
    """Within a percent of the order-zero entropy, small or large numbers."""
    array = np.rint(np.random.default_rng(3).laplace(0, spread, 400_000)).astype(np.int32)
    _, counts = np.unique(array, return_counts=True)
    share = counts / array.size
    entropy = -(share * np.log2(share)).sum() * array.size / 8
    assert len(integers.encode(array)) <= 1.01 * entropy + 64


def test_nothing_is_larger_than_itself() -> None:
    noise = np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint8)
    assert len(integers.encode(noise)) <= noise.nbytes + 8
    assert len(integers.encode(np.zeros(10**6, np.int32))) < 32
