"""The layout: names, shapes and dtypes of a model's tensors, agreed once between both ends."""

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError, SettingError, UpdateError

Update = dict[str, NDArray[Any]]  # a model's change, or a model: tensor by name


# Of one meaning everywhere; numpy's longdouble is not.
_DTYPES = {
    *("float16", "float32", "float64", "bool"),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
}

_STATISTICS = {"running_mean", "running_var"}  # torch's names


@dataclass(frozen=True)
class TensorSpec:
    """One tensor's place in a layout."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # numpy's name, e.g. "float32"

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor as it is."""
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def floating(self) -> bool:
        """Whether its elements are floats: such a tensor travels as its change, all others as they are."""
        return np.dtype(self.dtype).kind == "f"

    @property
    def lossy(self) -> bool:
        """Whether codecs may approximate it: floats only, and no statistics of batch norms.

        Those are in units of activations, which would drown weights in a squared error, and a variance that comes out
        negative breaks its model.
        """
        return self.floating and self.name.rpartition(".")[2] not in _STATISTICS


@dataclass(frozen=True)
class Layout:
    """Names, shapes and dtypes of the tensors of an update, in order.

    Floating-point tensors of any width travel as one float32 vector, the concatenation in C order ("values"); all
    others (integer counters, boolean masks), and statistics of batch norms, travel as their exact little-endian bytes
    ("exact").
    """

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) != len(names):
            raise SettingError(f"a layout names each tensor once, got {names}")
        for tensor in self.tensors:
            if tensor.dtype not in _DTYPES:
                raise SettingError(
                    f"tensor {tensor.name!r} is of {tensor.dtype}: {', '.join(sorted(_DTYPES))} can be sent"
                )

    @classmethod
    def of(cls, update: Mapping[str, NDArray[np.generic]]) -> "Layout":
        """Return the layout of `update`, a mapping from names to arrays of any shape."""
        return cls(tuple(TensorSpec(name, tuple(array.shape), array.dtype.name) for name, array in update.items()))

    @cached_property
    def floating(self) -> tuple[TensorSpec, ...]:
        """The floating-point tensors."""
        return tuple(tensor for tensor in self.tensors if tensor.floating)

    @cached_property
    def lossy(self) -> tuple[TensorSpec, ...]:
        """The tensors that codecs may approximate, whose elements make up "values"."""
        return tuple(tensor for tensor in self.tensors if tensor.lossy)

    @cached_property
    def size(self) -> int:
        """Number of elements that codecs may approximate: the length of "values"."""
        return sum(tensor.size for tensor in self.lossy)

    @cached_property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """The lossy tensors as matrices, first axis by all others; one row where there is only one axis."""
        return tuple(
            (t.shape[0], t.size // t.shape[0]) if len(t.shape) > 1 and t.size else (1, t.size) for t in self.lossy
        )

    @cached_property
    def exact_nbytes(self) -> int:
        """Bytes of the tensors that go through losslessly."""
        return sum(tensor.nbytes for tensor in self.tensors if not tensor.lossy)

    @property
    def room(self) -> int:
        """Bytes of all streams together that a lossless stage may hand back: the most that any codec makes of it."""
        return 2 * self.nbytes + 64 * len(self.lossy) + 4096

    @property
    def nbytes(self) -> int:
        """Bytes of the update uncompressed: 4 for every value, whatever its width, and the rest as it is."""
        return 4 * self.size + self.exact_nbytes

    @cached_property
    def text(self) -> str:
        """The layout as JSON, to be sent: a list of [name, shape, dtype]."""
        return json.dumps([[t.name, list(t.shape), t.dtype] for t in self.tensors], separators=(",", ":"))

    @classmethod
    @lru_cache(maxsize=16)
    def read(cls, text: str) -> "Layout":
        """Return the layout whose `text` this is; raise FrameError if it is none."""
        try:
            rows = json.loads(text)
            if not isinstance(rows, list):
                raise FrameError("a layout is a list of tensors")
            tensors = []
            for name, shape, dtype in rows:
                if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
                    raise FrameError("a layout's shapes are lists of whole numbers from 0 on")
                tensors.append(TensorSpec(str(name), tuple(shape), str(dtype)))
            return cls(tuple(tensors))
        except (TypeError, ValueError, RecursionError) as error:
            raise FrameError(f"not a layout: {error}") from error

    @cached_property
    def digest(self) -> bytes:
        """Hash of the whole layout, 8 bytes."""
        return hashlib.blake2b(self.text.encode(), digest_size=8).digest()

    def part(self, mask: bytes) -> "Layout":
        """Return the layout of the tensors whose bits are set in `mask`, least significant first; all if it is empty.

        Raises FrameError if the mask is not of this layout.
        """
        if not mask:
            return self
        return _part(self, mask)

    def mask(self, names: Collection[str]) -> bytes:
        """Return the mask of the tensors named so; empty if that is all of them."""
        bits = [tensor.name in names for tensor in self.tensors]
        return b"" if all(bits) else np.packbits(bits, bitorder="little").tobytes()

    def check(self, update: Mapping[str, NDArray[np.generic]]) -> None:
        """Raise UpdateError if `update` is not of this layout."""
        if update.keys() != {tensor.name for tensor in self.tensors}:
            odd = sorted(update.keys() ^ {tensor.name for tensor in self.tensors})
            raise UpdateError(f"the update's tensors are not the layout's: {', '.join(odd)}")
        for tensor in self.tensors:
            array = update[tensor.name]
            if tuple(array.shape) != tensor.shape or array.dtype.name != tensor.dtype:
                raise UpdateError(
                    f"tensor {tensor.name!r} is {array.dtype.name}{list(array.shape)}, "
                    f"the layout says {tensor.dtype}{list(tensor.shape)}"
                )

    def flatten(self, update: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return `update` as ("values" float32 (size,), "exact" uint8 (exact_nbytes,)).

        Raises
        ------
        UpdateError
            If a tensor is missing, extra, of another shape or dtype, or holds NaN or infinity (in float32).
        """
        self.check(update)
        values = np.empty(self.size, np.float32)
        exact = bytearray()
        at = 0
        for tensor in self.tensors:
            array = update[tensor.name]
            if not tensor.lossy:
                if tensor.floating:
                    _finite(tensor, array)
                exact += np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
                continue
            part = values[at : at + tensor.size]
            with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinity, and is refused below
                part[:] = array.reshape(-1)
            _finite(tensor, part)
            at += tensor.size
        return values, np.frombuffer(bytes(exact), np.uint8)

    def unflatten(self, values: NDArray[np.float32], exact: NDArray[np.uint8]) -> Update:
        """Return the update whose `flatten` is (`values`, `exact`); floats narrower than float32 are rounded.

        Raises FrameError if `exact` holds a boolean that is none, or a float that is not finite.
        """
        update: Update = {}
        at, byte = 0, 0
        for tensor in self.tensors:
            dtype = np.dtype(tensor.dtype)
            if tensor.lossy:
                array = values[at : at + tensor.size]
                if dtype.itemsize < 4:  # what is approximated may lie beyond what it stands for
                    limit = np.finfo(dtype).max
                    array = array.clip(-limit, limit)
                array = array.astype(dtype, copy=False)
                at += tensor.size
            else:
                raw = exact[byte : byte + tensor.nbytes].tobytes()
                if dtype.kind == "b" and max(raw, default=0) > 1:
                    raise FrameError(f"tensor {tensor.name!r} is boolean, and holds {max(raw)}")
                array = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)
                if tensor.floating and not np.isfinite(array).all():
                    raise FrameError(f"tensor {tensor.name!r} is not finite")
                byte += tensor.nbytes
            update[tensor.name] = array.reshape(tensor.shape)
        return update


def _finite(tensor: TensorSpec, array: NDArray[np.generic]) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        raise UpdateError(f"tensor {tensor.name!r} holds {int((~finite).sum())} values that are NaN or infinite")


def read_mask(mask: bytes, count: int) -> list[int]:
    """Return the bit of each of `count` tensors; raise FrameError if `mask` is not of so many."""
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
    if len(mask) != -(-count // 8) or bits[count:].any():
        raise FrameError(f"a mask of {len(mask)} bytes is not one of {count} tensors")
    return [int(bit) for bit in bits[:count]]


@lru_cache(maxsize=64)
def _part(layout: Layout, mask: bytes) -> Layout:
    bits = read_mask(mask, len(layout.tensors))
    return Layout(tuple(tensor for tensor, bit in zip(layout.tensors, bits, strict=True) if bit))
