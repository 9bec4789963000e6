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


# The same on every machine; numpy's longdouble is not.
_DTYPES = {
    *("float16", "float32", "float64", "complex64", "complex128", "bool"),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
}

_STATISTICS = {"running_mean", "running_var"}  # torch's names


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of one tensor.

    Parameters
    ----------
    name : str
        Name of the tensor in its model.
    shape : tuple of int
        Length of each axis.
    dtype : str
        numpy's name of it, such as "float32".

    Examples
    --------
    >>> TensorSpec("w", (2, 3), "float32").nbytes
    24
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor, uncompressed."""
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def floating(self) -> bool:
        """Whether its elements are real floats: only of such a tensor is the change sent, of all others the values."""
        return np.dtype(self.dtype).kind == "f"

    @property
    def lossy(self) -> bool:
        """Whether codecs may approximate it: floats, except statistics of batch norms.

        Statistics have the units of activations, which would dominate a squared error, and a model fails if one of its
        variances becomes negative.
        """
        return self.floating and self.name.rpartition(".")[2] not in _STATISTICS


@dataclass(frozen=True)
class Layout:
    """Names, shapes and dtypes of the tensors of an update, in order.

    Floating-point tensors of any width are sent as one float32 vector, the concatenation in C order ("values"); all
    others (integer counters, boolean masks), and statistics of batch norms, as their exact little-endian bytes
    ("exact").

    Parameters
    ----------
    tensors : tuple of TensorSpec
        The tensors, each under another name.

    Raises
    ------
    SettingError
        If a name occurs twice, or a dtype cannot be sent.

    Examples
    --------
    >>> layout = Layout.of({"w": np.zeros((2, 3), np.float32), "steps": np.zeros(1, np.int64)})
    >>> layout.size, layout.nbytes
    (6, 32)
    """

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) != len(names):
            raise SettingError(f"names of a layout's tensors must differ, got {names}")
        for tensor in self.tensors:
            if tensor.dtype not in _DTYPES:
                raise SettingError(
                    f"dtype of tensor {tensor.name!r} must be one of {', '.join(sorted(_DTYPES))}, got {tensor.dtype}"
                )

    @classmethod
    def of(cls, update: Mapping[str, NDArray[np.generic]]) -> "Layout":
        """Return the layout of `update`.

        Parameters
        ----------
        update : mapping of str to ndarray
            Arrays of any shape, by name.

        Returns
        -------
        Layout
            Its tensors in the order of the mapping.

        Examples
        --------
        >>> Layout.of({"w": np.zeros(2, np.float32)}).tensors
        (TensorSpec(name='w', shape=(2,), dtype='float32'),)
        """
        return cls(tuple(TensorSpec(name, tuple(array.shape), array.dtype.name) for name, array in update.items()))

    @cached_property
    def floating(self) -> tuple[TensorSpec, ...]:
        """The floating-point tensors."""
        return tuple(tensor for tensor in self.tensors if tensor.floating)

    @cached_property
    def lossy(self) -> tuple[TensorSpec, ...]:
        """The tensors that codecs may approximate: their elements are "values"."""
        return tuple(tensor for tensor in self.tensors if tensor.lossy)

    @cached_property
    def size(self) -> int:
        """Number of elements that codecs may approximate: the length of "values"."""
        return sum(tensor.size for tensor in self.lossy)

    @cached_property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """Shape of each lossy tensor as a matrix, the first axis by all others; of one row if it has one axis."""
        return tuple(
            (t.shape[0], t.size // t.shape[0]) if len(t.shape) > 1 and t.size else (1, t.size) for t in self.lossy
        )

    @cached_property
    def exact_nbytes(self) -> int:
        """Bytes of the tensors that codecs may not approximate."""
        return sum(tensor.nbytes for tensor in self.tensors if not tensor.lossy)

    @property
    def max_nbytes(self) -> int:
        """Largest number of bytes of all streams together that a lossless stage may decode to."""
        return 2 * self.nbytes + 64 * len(self.lossy) + 4096

    @property
    def nbytes(self) -> int:
        """Bytes of the update, uncompressed: 4 for every value, whatever its width, and those of the rest."""
        return 4 * self.size + self.exact_nbytes

    @cached_property
    def text(self) -> str:
        """The layout as JSON: a list of [name, shape, dtype]."""
        return json.dumps([[t.name, list(t.shape), t.dtype] for t in self.tensors], separators=(",", ":"))

    @classmethod
    @lru_cache(maxsize=16)
    def read(cls, text: str) -> "Layout":
        """Return the layout with this `text`.

        Parameters
        ----------
        text : str
            JSON, from outside.

        Returns
        -------
        Layout
            The layout.

        Raises
        ------
        FrameError
            If the text is not that of a layout.

        Examples
        --------
        >>> Layout.read('[["w",[2,3],"float32"]]').size
        6
        """
        try:
            rows = json.loads(text)
            if not isinstance(rows, list):
                raise FrameError("a layout must be a list of tensors")
            tensors = []
            for name, shape, dtype in rows:
                if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
                    raise FrameError("a layout's shapes must be lists of integers of at least 0")
                tensors.append(TensorSpec(str(name), tuple(shape), str(dtype)))
            return cls(tuple(tensors))
        except (TypeError, ValueError, RecursionError) as error:
            raise FrameError(f"not a layout: {error}") from error

    @cached_property
    def digest(self) -> bytes:
        """Hash of the whole layout, 8 bytes."""
        return hashlib.blake2b(self.text.encode(), digest_size=8).digest()

    def part(self, mask: bytes) -> "Layout":
        """Return the layout of some of the tensors: the inverse of `mask`.

        Parameters
        ----------
        mask : bytes
            A bit for each tensor, least significant first; empty for all of them.

        Returns
        -------
        Layout
            The layout of the tensors whose bits are set.

        Raises
        ------
        FrameError
            If the mask is not of this many tensors.

        Examples
        --------
        >>> layout = Layout.of({"w": np.zeros(2, np.float32), "b": np.zeros(1, np.float32)})
        >>> [tensor.name for tensor in layout.part(layout.mask({"b"})).tensors]
        ['b']
        """
        if not mask:
            return self
        return _part(self, mask)

    def mask(self, names: Collection[str]) -> bytes:
        """Return the mask of some of the tensors.

        Parameters
        ----------
        names : collection of str
            Names of tensors.

        Returns
        -------
        bytes
            A bit for each tensor of the layout, least significant first; empty if all are named.

        Examples
        --------
        >>> Layout.of({"w": np.zeros(2, np.float32), "b": np.zeros(1, np.float32)}).mask({"b"}).hex()
        '02'
        """
        bits = [tensor.name in names for tensor in self.tensors]
        return b"" if all(bits) else np.packbits(bits, bitorder="little").tobytes()

    def check(self, update: Mapping[str, NDArray[np.generic]]) -> None:
        """Raise UpdateError if `update` is not of this layout.

        Parameters
        ----------
        update : mapping of str to ndarray
            Arrays by name.

        Examples
        --------
        >>> Layout.of({"w": np.zeros(2, np.float32)}).check({"w": np.ones(2, np.float32)})
        """
        if update.keys() != {tensor.name for tensor in self.tensors}:
            differing = sorted(update.keys() ^ {tensor.name for tensor in self.tensors})
            raise UpdateError(f"the update's tensors must be those of the layout: {', '.join(differing)}")
        for tensor in self.tensors:
            array = update[tensor.name]
            if tuple(array.shape) != tensor.shape or array.dtype.name != tensor.dtype:
                raise UpdateError(
                    f"tensor {tensor.name!r} must be {tensor.dtype}{list(tensor.shape)}, "
                    f"got {array.dtype.name}{list(array.shape)}"
                )

    def flatten(self, update: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return `update` as two vectors.

        Parameters
        ----------
        update : mapping of str to ndarray
            Arrays by name.

        Returns
        -------
        values
            The elements that codecs may approximate, float32 (size,).
        exact
            Bytes of all others, uint8 (exact_nbytes,).

        Raises
        ------
        UpdateError
            If a tensor is missing, extra, of another shape or dtype, or not finite in float32.

        Examples
        --------
        >>> update = {"w": np.array([[1, 2]], np.float32), "on": np.array([True])}
        >>> [vector.tolist() for vector in Layout.of(update).flatten(update)]
        [[1.0, 2.0], [1]]
        """
        self.check(update)
        values = np.empty(self.size, np.float32)
        exact = bytearray()
        at = 0
        for tensor in self.tensors:
            array = update[tensor.name]
            if not tensor.lossy:
                if array.dtype.kind in "fc":
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
        """Return the update of two vectors: the inverse of `flatten`.

        Parameters
        ----------
        values : ndarray of float32
            float32 (size,); rounded for tensors of a narrower dtype.
        exact : ndarray of uint8
            uint8 (exact_nbytes,).

        Returns
        -------
        Update
            Arrays by name.

        Raises
        ------
        FrameError
            If `exact` holds a float that is not finite, or a boolean that is neither 0 nor 1.

        Examples
        --------
        >>> update = {"w": np.array([[1, 2]], np.float32), "on": np.array([True])}
        >>> layout = Layout.of(update)
        >>> {name: array.tolist() for name, array in layout.unflatten(*layout.flatten(update)).items()}
        {'w': [[1.0, 2.0]], 'on': [True]}
        """
        update: Update = {}
        at, byte = 0, 0
        for tensor in self.tensors:
            dtype = np.dtype(tensor.dtype)
            if tensor.lossy:
                array = values[at : at + tensor.size]
                if dtype.itemsize < 4:  # an approximation may be beyond the range of the dtype
                    limit = np.finfo(dtype).max
                    array = array.clip(-limit, limit)
                array = array.astype(dtype, copy=False)
                at += tensor.size
            else:
                raw = exact[byte : byte + tensor.nbytes].tobytes()
                if dtype.kind == "b" and max(raw, default=0) > 1:
                    raise FrameError(f"elements of tensor {tensor.name!r} must be 0 or 1, got {max(raw)}")
                array = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)
                if dtype.kind in "fc" and not np.isfinite(array).all():
                    raise FrameError(f"tensor {tensor.name!r} must be finite")
                byte += tensor.nbytes
            update[tensor.name] = array.reshape(tensor.shape)
        return update


def _finite(tensor: TensorSpec, array: NDArray[np.generic]) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        raise UpdateError(
            f"tensor {tensor.name!r} must be finite, got {int((~finite).sum())} values that are NaN or infinite"
        )


def read_mask(mask: bytes, count: int) -> list[int]:
    """Return the bits of a mask of tensors.

    Parameters
    ----------
    mask : bytes
        A bit for each tensor, least significant first.
    count : int
        Number of tensors.

    Returns
    -------
    list[int]
        0 or 1 for each tensor.

    Raises
    ------
    FrameError
        If the mask is not of this many tensors.

    Examples
    --------
    >>> read_mask(bytes([5]), 3)
    [1, 0, 1]
    """
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
    if len(mask) != -(-count // 8) or bits[count:].any():
        raise FrameError(f"a mask must have a bit for each of {count} tensors, got {len(mask)} bytes")
    return [int(bit) for bit in bits[:count]]


@lru_cache(maxsize=64)
def _part(layout: Layout, mask: bytes) -> Layout:
    bits = read_mask(mask, len(layout.tensors))
    return Layout(tuple(tensor for tensor, bit in zip(layout.tensors, bits, strict=True) if bit))
