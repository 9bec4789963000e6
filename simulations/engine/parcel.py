"""A parcel: what a process that is started anew is given, in memory that such processes share.

Large arrays are mapped, not copied: numpy's and whatever else gives its buffers to pickle (pandas, Arrow), and torch's
tensors on the CPU. A process may write to them, and no other process sees it. Functions and classes of `__main__`, and
of modules that an import does not find, are sent by value, so a script is not run again; all others are imported.
"""

import io
import json
import logging
import mmap
import os
import pickle
import sys
from dataclasses import dataclass
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle

from fedpress.common.errors import SettingError
from fedpress.compression.third_party import add_codec, codecs_by_name
from fedpress.protocol.records import LARGE

_ALIGNMENT = 64  # bytes; of arrays in the parcel
_LENGTH = 8  # bytes; of the number at its end


@dataclass(frozen=True)
class _Surroundings:
    """The state of this process's libraries that a fork would have copied."""

    levels: dict[str, int]  # of loggers
    codecs: dict[str, Any]  # by name: those that the user registered or named
    torch: tuple[Any, Any] | None  # its default type, and the state of its generator

    @classmethod
    def here(cls) -> "_Surroundings":
        """Return those of this process."""
        loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
        torch = sys.modules.get("torch")
        return cls(
            {logger.name: logger.level for logger in loggers if isinstance(logger, logging.Logger) and logger.level},
            codecs_by_name(),
            (torch.get_default_dtype(), torch.get_rng_state()) if torch else None,
        )

    def restore(self) -> None:
        """Set them in this process."""
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
        for name, codec in self.codecs.items():
            add_codec(name, codec)
        if self.torch:
            import torch

            dtype, state = self.torch
            torch.set_default_dtype(dtype)
            torch.set_rng_state(state)


def pack(thing: object) -> int:
    """Write `thing` to a new parcel.

    Parameters
    ----------
    thing : object
        Anything that cloudpickle takes.

    Returns
    -------
    int
        Descriptor of the parcel.

    Raises
    ------
    SettingError
        If `thing` cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    out = io.BytesIO()
    pickler = _Pickler(out, buffers)
    try:
        pickler.dump((thing, _Surroundings.here(), pickler.own))
    except Exception as error:
        raise SettingError(
            f"client_app must be picklable where workers are started anew, got {type(error).__name__}: {error}. Make "
            "such objects in the function that uses them"
        ) from error
    descriptor = os.memfd_create("fedpress")
    places = []
    with open(descriptor, "wb", closefd=False) as file:
        for part in (out.getbuffer(), *(buffer.raw() for buffer in buffers)):
            file.seek(-file.tell() % _ALIGNMENT, os.SEEK_CUR)
            places.append((file.tell(), part.nbytes))
            file.write(part)
        index = json.dumps(places).encode()
        file.write(index + len(index).to_bytes(_LENGTH, "little"))
    return descriptor


def unpack(descriptor: int) -> Any:
    """Return a copy of what was packed; its large arrays are mapped."""
    memory = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
    end = len(memory) - _LENGTH
    start = end - int.from_bytes(memory[end:], "little")
    head, *buffers = (memory[at : at + size] for at, size in json.loads(bytes(memory[start:end])))
    thing, surroundings, own = pickle.loads(head, buffers=buffers)  # noqa: S301  from the process that started this one
    vars(sys.modules["__main__"]).update(own)  # where pickle looks for them, e.g. if a client starts a pool
    surroundings.restore()
    return thing


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, out: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> None:
        def keep(buffer: pickle.PickleBuffer) -> bool:
            if buffer.raw().nbytes < LARGE:
                return True
            buffers.append(buffer)
            return False

        super().__init__(out, 5, keep)
        self._can_be_imported = cache(_can_be_imported)
        self.own: dict[str, object] = {}  # functions and classes of `__main__` found so far, by name

    def reducer_override(self, obj: Any) -> Any:
        torch = sys.modules.get("torch")
        if isinstance(obj, FunctionType | type):
            name, module = obj.__name__, sys.modules.get(obj.__module__)
            if obj.__module__ == "__main__" and vars(module).get(name) is obj:
                self.own[name] = obj
            elif module and not self._can_be_imported(module):
                cloudpickle.register_pickle_by_value(module)
        elif torch and type(obj) is torch.Tensor and _is_plain(obj):
            return _tensor, (obj.reshape(-1).view(torch.uint8).numpy(), obj.dtype, tuple(obj.shape))
        return super().reducer_override(obj)


def _can_be_imported(module: ModuleType) -> bool:
    """Return whether an import finds a module, or if not whether it has no source from which to send it by value."""
    package = module.__name__.rpartition(".")[0]
    path = getattr(sys.modules.get(package), "__path__", ()) if package else None
    found = (finder.find_spec(module.__name__, path) for finder in sys.meta_path)
    return not str(getattr(module, "__file__", "")).endswith(".py") or any(found)


def _is_plain(tensor: Any) -> bool:
    """Return whether the bytes of a torch tensor are its values in order, in memory, and many."""
    return (
        tensor.device.type == "cpu"
        and str(tensor.layout) == "torch.strided"
        and not (tensor.requires_grad or tensor.is_conj() or tensor.is_neg() or tensor.is_quantized)
        and tensor.is_contiguous()
        and tensor.nbytes >= LARGE
    )


def _tensor(data: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    import torch

    return torch.from_numpy(data).view(dtype).reshape(shape)
