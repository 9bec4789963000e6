"""Random generators, all derived from the seed of a run; no other module makes any."""

import hashlib
import threading

import numpy as np
from numpy.typing import NDArray

# Held from the seeding of `random` and `numpy.random` until they are drawn from: runs in other threads seed them too.
GLOBAL_GENERATORS = threading.RLock()


def derive(seed: int, *path: str | int) -> np.random.Generator:
    """Return the generator that belongs to `path` under `seed`, the same one on every machine.

    Different paths give independent streams: the path is hashed (BLAKE2b) into the key of a counter-based
    generator (Philox, Salmon et al. 2011), so that no two streams overlap.

    Examples
    --------
    >>> int(derive(0, "train", 3, 17).integers(1000)) == int(derive(0, "train", 3, 17).integers(1000))
    True
    """
    text = "\x1f".join(f"{type(step).__name__}:{step}" for step in (int(seed), *path))
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def shared(seed: int, count: int) -> NDArray[np.uint64]:
    """Return `count` random words, uint64, the same on every machine for a `seed` below 2**64.

    They are the raw output of Philox4x64-10, which is specified; numpy's distributions may change between versions.
    """
    return np.random.Philox(key=seed).random_raw(count)


def words(seed: int, first: int, count: int) -> NDArray[np.uint64]:
    """Return `count` words of `shared`, starting at index `first`, a multiple of four."""
    return np.random.Philox(key=seed).advance(first // 4).random_raw(count)
