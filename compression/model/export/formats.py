"""The formats of exported files, and the checks before one is written."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec

from torch import Tensor, nn

from fedpress.common.errors import SettingError, unknown
from fedpress.compression.model.export import executorch, onnx, safetensors
from fedpress.compression.model.weight_sharing import unpack

EXTRA = "fedpress[export]"


@dataclass(frozen=True)
class Format:
    """A format of exported files."""

    suffix: str
    write: Callable[[nn.Module, Tensor, bool], bytes]
    packages: tuple[str, ...] = ()  # modules of the extra that writing and running a file need
    recurrent: str = ""  # reason why it cannot hold recurrent layers; empty if it can


FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", onnx.write, ("onnx", "onnxscript", "onnxruntime")),
    "executorch": Format(
        ".pte",
        executorch.write,
        ("executorch", "torchao"),
        "it has none, and unrolled step by step they take minutes to write and twice the bytes",
    ),
    "safetensors": Format(".safetensors", safetensors.write),
}
_NO_INT8 = "no supported runtime has them in int8"


def export(model: nn.Module, x: Tensor, format: str, *, int8: bool = False) -> bytes:
    """Return the file of `model`, which is put into evaluation mode.

    Parameters
    ----------
    x : Tensor
        Inputs from its training data, (n, ...), for shapes and, with int8, ranges.

    Raises
    ------
    SettingError
        If there is no such format, its packages are not installed, or the model has a layer that it cannot hold.
    """
    if format not in FORMATS:
        raise SettingError(unknown("format", format, FORMATS))
    chosen = FORMATS[format]
    if missing := [name for name in chosen.packages if find_spec(name) is None]:
        raise SettingError(f"format {format} takes {', '.join(missing)}, not installed here: pip install '{EXTRA}'")
    _check_layers(model, format, int8=int8)
    model.eval()
    # Programs need plain weights; a file of weights is small with shared ones.
    ready = model if format == "safetensors" else unpack(model)
    with quiet():
        try:
            return chosen.write(ready, x, int8)
        except Exception as error:
            kind = "int8 " if int8 else ""
            raise SettingError(f"the model cannot be exported as {kind}{format}: {line_of(error)}") from error


def _check_layers(model: nn.Module, format: str, *, int8: bool) -> None:
    reason = FORMATS[format].recurrent or (_NO_INT8 if int8 and format != "safetensors" else "")
    for name, layer in model.named_modules():
        if reason and isinstance(layer, nn.RNNBase):
            kind = "int8 " if int8 else ""
            raise SettingError(
                f"{kind}{format} holds no recurrent layers, and {name!r} is of {type(layer).__name__}: {reason}"
            )


def line_of(error: BaseException) -> str:
    """Return the first line of the root cause of an exporter's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings, logs and output of exporters."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        # torch prints the graph on errors.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
