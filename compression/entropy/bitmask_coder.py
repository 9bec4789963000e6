"""Marks, one bit a place, coded under a table for each class of places that both ends know."""

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.entropy import rans
from fedpress.compression.entropy.frequency_tables import FrequencyTables
from fedpress.compression.frame import ByteReader


def encode(marks: NDArray[np.bool_], classes: NDArray[np.uint8]) -> bytes:
    """Return `marks`, (n,), as bytes for `decode`, which is told the class of each place, (n,)."""
    if marks.size == 0:
        return b""
    order = np.argsort(classes, kind="stable")
    found, context = np.unique(classes[order], return_inverse=True)
    tokens = marks[order].astype(np.uint8)
    counts = np.zeros((found.size, 2), np.int64)
    np.add.at(counts, (context, tokens), 1)
    tables = FrequencyTables.fit(counts)
    out = bytearray()
    tables.write(out)
    rans.encode(tokens, context.astype(np.uint8), tables, b"", out)
    return bytes(out)


def decode(reader: ByteReader, classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the mark of each place, (n,); raise FrameError if that is not what comes next."""
    marks = np.zeros(classes.size, np.bool_)
    if classes.size == 0:
        return marks
    order = np.argsort(classes, kind="stable")
    found, runs = np.unique(classes, return_counts=True)
    tables = FrequencyTables.read(reader, found.size, 2)
    tokens, spare = rans.decode(reader, np.arange(found.size, dtype=np.uint8), runs.astype(np.int64), tables)
    if any(spare):
        raise FrameError("the coder does not end where it began")
    marks[order] = tokens == 1
    return marks
