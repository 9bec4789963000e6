"""Randomness: the one place that makes generators, all from a run's one seed."""

import hashlib

import numpy as np
from numpy.typing import NDArray


def derive(seed: int, *path: str | int) -> np.random.Generator:
    """Return the generator that belongs to `path` under `seed`, the same one on every machine.

    Different paths give independent streams: the path is hashed (BLAKE2b) into the key of a counter-based
    generator (Philox, Salmon et al. 2011), so no stream is reached by running another one on.

    Examples
    --------
    >>> int(derive(0, "train", 3, 17).integers(1000)) == int(derive(0, "train", 3, 17).integers(1000))
    True
    """
    text = "\x1f".join(f"{type(step).__name__}:{step}" for step in (int(seed), *path))
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def shared(seed: int, count: int) -> NDArray[np.uint64]:
    """Return `count` random words, uint64, that every machine gets from `seed`, below 2**64.

    They are Philox4x64-10's raw output, which is defined; numpy's distributions may change between its versions.
    """
    return np.random.Philox(key=seed).random_raw(count)


def words(seed: int, first: int, count: int) -> NDArray[np.uint64]:
    """Return the `count` words of `shared` from the one numbered `first`, a multiple of four, on."""
    return np.random.Philox(key=seed).advance(first // 4).random_raw(count)
