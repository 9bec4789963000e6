"""Laws of the entropy coder: what goes in comes out, in about as many bits as its entropy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from fedpress.common.errors import FrameError
from fedpress.compression.entropy import bit_io, integer_coder, rans
from fedpress.compression.entropy.frequency_tables import FrequencyTable, FrequencyTables, fit
from fedpress.compression.entropy.tokens import Tokens, fold, unfold
from fedpress.compression.frame import ByteReader

dtypes = st.sampled_from([np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64])


@given(nps.arrays(dtypes, st.integers(0, 300)))
def test_any_integers_come_back(array: np.ndarray) -> None:
    back = integer_coder.decode(integer_coder.encode(array), array.nbytes)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(st.integers(0, 2**32), st.integers(1, 3000), st.floats(0, 30))
def test_skewed_integers_come_back(seed: int, size: int, spread: float) -> None:
    array = np.rint(np.random.default_rng(seed).laplace(0, spread, size)).astype(np.int32)
    np.testing.assert_array_equal(integer_coder.decode(integer_coder.encode(array), array.nbytes), array)


@given(nps.arrays(np.uint64, st.integers(0, 200), elements=st.integers(0, 2**32 - 1)))
def test_tokens_and_raw_bits_are_the_number(numbers: np.ndarray) -> None:
    for way in (Tokens(4, 1), Tokens(6, 2)):
        token, raw, width = way.tokenize(numbers)
        np.testing.assert_array_equal(way.join(token, bit_io.BitReader(bit_io.pack(raw, width))), numbers)
        assert token.max(initial=0) < way.count


@given(nps.arrays(np.int32, st.integers(0, 99), elements=st.integers(-(2**31), 2**31 - 1)))
def test_folding_is_one_to_one(numbers: np.ndarray) -> None:
    np.testing.assert_array_equal(unfold(fold(numbers)), numbers)


@given(st.lists(st.integers(0, 32), max_size=60), st.integers(0, 2**32))
def test_bits_come_back(widths: list[int], seed: int) -> None:
    width = np.array(widths, np.int64)
    numbers = np.random.default_rng(seed).integers(0, 2**32, width.size, dtype=np.uint64)
    numbers &= (np.uint64(1) << width.astype(np.uint64)) - np.uint64(1)
    data = bit_io.pack(numbers, width)
    assert len(data) == (sum(widths) + 7) // 8
    reader = bit_io.BitReader(data)
    np.testing.assert_array_equal(reader.take(width), numbers)
    reader.end()


def test_bits_come_back_across_blocks() -> None:
    rng = np.random.default_rng(0)
    width = rng.integers(0, 20, 100_000)
    numbers = rng.integers(0, 2**20, width.size, dtype=np.uint64) & ((1 << width) - 1).astype(np.uint64)
    np.testing.assert_array_equal(bit_io.BitReader(bit_io.pack(numbers, width)).take(width), numbers)
    for fixed in (0, 1, 7, 13):
        out = np.zeros(width.size, np.uint32)
        bit_io.BitReader(bit_io.pack(numbers, fixed)).fixed(out, fixed)
        np.testing.assert_array_equal(out, numbers & ((1 << fixed) - 1))


@given(nps.arrays(np.int64, st.integers(1, 72), elements=st.integers(0, 10**6)))
def test_a_table_is_read_back(counts: np.ndarray) -> None:
    counts[0] += 1
    (table,) = fit(counts[None])
    assert table.frequency.sum() == 1 << table.precision
    assert ((table.frequency > 0) == (np.trim_zeros(counts, "b") > 0)).all()
    out = bytearray()
    table.write(out)
    back = FrequencyTable.read(ByteReader(bytes(out)), 72)
    assert back.precision == table.precision
    np.testing.assert_array_equal(back.frequency, table.frequency)


@pytest.mark.parametrize("spare", [0, 100, 10_000])
@pytest.mark.parametrize("size", [0, 1, 6, 1000, 50_003])
def test_tokens_come_back_by_context_and_lanes_carry_bytes(size: int, spare: int) -> None:
    rng = np.random.default_rng(size)
    runs = rng.multinomial(size, [0.2, 0.0, 0.5, 0.3])
    of_run = np.array([2, 0, 1, 2], np.uint8)
    contexts = np.repeat(of_run, runs)
    token = np.minimum(rng.geometric(np.array([0.9, 0.4, 0.2])[contexts]) - 1, 71).astype(np.uint8)
    tables = FrequencyTables.of(
        [fit(np.bincount(token[contexts == c], minlength=1)[None] + 1, finest=12)[0] for c in range(3)]
    )
    carried = rng.bytes(spare)
    out = bytearray()
    used = rans.encode(token, contexts, tables, carried, out)
    back, gave = rans.decode(ByteReader(bytes(out)), of_run, runs, tables)
    np.testing.assert_array_equal(back, token)
    assert gave[:used] == carried[:used]
    assert not any(gave[used:])
    if size > 1:
        with pytest.raises(FrameError):
            rans.decode(ByteReader(bytes(out)), of_run, runs + 1, tables)


@pytest.mark.parametrize("spread", [0.15, 0.4, 1.0, 3.0, 40.0])
def test_the_size_is_the_entropy(spread: float) -> None:
    """Within half a percent of the order-zero entropy, small or large numbers."""
    array = np.rint(np.random.default_rng(3).laplace(0, spread, 400_000)).astype(np.int32)
    _, counts = np.unique(array, return_counts=True)
    share = counts / array.size
    entropy = -(share * np.log2(share)).sum() * array.size / 8
    assert len(integer_coder.encode(array)) <= 1.005 * entropy + 64


def test_no_stream_grows_much() -> None:
    noise = np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint8)
    assert len(integer_coder.encode(noise)) <= noise.nbytes + 8
    assert len(integer_coder.encode(np.zeros(10**6, np.int32))) < 32
