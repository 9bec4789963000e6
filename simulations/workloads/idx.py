"""Files in the format of MNIST, LeCun et al. 1998, http://yann.lecun.com/exdb/mnist."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import DataError


def find_idx(folder: Path, name: str) -> Path | None:
    """Return the file `name` of a folder, gzipped or not; None if it is missing."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """Return one idx file: two zero bytes, 8 for bytes, the number of axes, each axis' length, the values."""
    path = find_idx(folder, name)
    if path is None:
        raise DataError(f"{folder / name}: no such file")
    try:
        data = path.read_bytes()
        raw = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read, fetch it again: {error}") from error
    axes = raw[3] if len(raw) > 4 and raw[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(raw[4 : 4 + 4 * axes], ">u4") if len(raw) >= 4 + 4 * axes else np.zeros(0)
    if not axes or len(raw) != 4 + 4 * axes + int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{path} is cut short or no idx file of bytes: fetch it again")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape.astype(int)).copy()
