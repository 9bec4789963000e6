"""Bit masks, coded under a table for each class of positions, which both ends derive."""

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.entropy import rans
from fedpress.compression.entropy.frequency_tables import FrequencyTables
from fedpress.compression.frame import ByteReader


def encode(mask: NDArray[np.bool_], classes: NDArray[np.uint8]) -> bytes:
    """Return `mask`, (n,), as bytes for `decode`, given the class of each position, (n,)."""
    if mask.size == 0:
        return b""
    order = np.argsort(classes, kind="stable")
    found, context = np.unique(classes[order], return_inverse=True)
    tokens = mask[order].astype(np.uint8)
    counts = np.zeros((found.size, 2), np.int64)
    np.add.at(counts, (context, tokens), 1)
    tables = FrequencyTables.fit(counts)
    out = bytearray()
    tables.write(out)
    rans.encode(tokens, context.astype(np.uint8), tables, b"", out)
    return bytes(out)


def decode(reader: ByteReader, classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the mask, (n,), given the class of each position, (n,); raise FrameError if the data is not valid."""
    mask = np.zeros(classes.size, np.bool_)
    if classes.size == 0:
        return mask
    order = np.argsort(classes, kind="stable")
    found, runs = np.unique(classes, return_counts=True)
    tables = FrequencyTables.read(reader, found.size, 2)
    tokens, spare = rans.decode(reader, np.arange(found.size, dtype=np.uint8), runs.astype(np.int64), tables)
    if any(spare):
        raise FrameError("the coder must end in its initial state")
    mask[order] = tokens == 1
    return mask
