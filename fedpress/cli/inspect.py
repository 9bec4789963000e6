"""`fedpress inspect`: the contents of a frame in readable form."""

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedpress.cli.options import Debug
from fedpress.common.errors import DataError, FrameError

if TYPE_CHECKING:
    from rich.console import Console

    from fedpress.compression import Layout
    from fedpress.compression.inspect import FrameReport

_MIN_SYMBOLS = 64  # symbols of a stream below which no histogram is shown


def inspect(
    frame: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file with one frame.")],
    layout: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A model as safetensors, or a layout as JSON; needed to decode the streams.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    _debug: Debug = False,
) -> None:
    """Show a frame's spec, tensors, bytes by stream, and a histogram of its symbols.

    Example: `fedpress inspect update.fp --layout model.safetensors`
    """
    from rich.console import Console

    from fedpress.compression.inspect import inspect as report_of

    data, model = _read(frame), _layout(layout) if layout else None
    try:
        report = report_of(data, model)
    except FrameError as error:
        raise FrameError(f"{frame}: {error}") from error
    if json:
        typer.echo(json_module.dumps(asdict(report)))
        return
    console = Console(highlight=False)
    console.print(f"spec    {report.spec}", markup=False)
    console.print(f"layout  {report.layout}")
    console.print(f"base    {report.base or 'none: a key frame'}")
    console.print(f"bytes   {report.nbytes:,}, of which {report.head} are the head (version {report.version})")
    if report.bits is not None:
        console.print(f"        {report.bits:.4f} bits a parameter, {report.ratio:.1f} times less than float32")
    _print(report, console)
    if layout is None:
        console.print("with --layout, tensors and symbols are shown too")


def _print(report: "FrameReport", console: "Console") -> None:
    from rich.table import Table

    table = Table("stream", "dtype", "bytes", "share", title="on the wire", title_justify="left")
    for stream in report.streams:
        share = stream.nbytes / max(1, report.nbytes)
        table.add_row(stream.name, stream.dtype, f"{stream.nbytes:,}", f"{share:.1%}")
    console.print(table)
    if report.tensors:
        table = Table("tensor", "shape", "dtype", "zeros", "largest", title="decoded", title_justify="left")
        for tensor in report.tensors:
            shape = " x ".join(map(str, tensor.shape)) or "scalar"
            table.add_row(tensor.name, shape, tensor.dtype, f"{tensor.zeros:.1%}", f"{tensor.largest:.3g}")
        console.print(table)
    for symbols in report.symbols:
        console.print(
            f"{symbols.name}: {symbols.count:,} in {symbols.nbytes:,} bytes; {symbols.zeros:.1%} zeros, "
            f"{symbols.distinct} distinct, {symbols.entropy:.3f} bits each at order zero"
        )
        if symbols.count < _MIN_SYMBOLS:
            continue
        most = max(symbols.histogram.values())
        for symbol, count in symbols.histogram.items():
            console.print(f"{symbol:>10} {'█' * round(40 * count / most) or '▏'} {count:,}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _layout(path: Path) -> "Layout":
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from fedpress.compression import Layout
    from fedpress.compression.inspect import layout_of

    data = _read(path)
    if path.suffix == ".safetensors":
        try:
            return Layout.of(load_file(path))
        except SafetensorError as error:
            raise DataError(f"{path} is no safetensors file: {error}") from error
    try:
        return layout_of(data.decode("utf-8-sig"))
    except (UnicodeDecodeError, FrameError) as error:
        raise DataError(f"{path} holds no layout: {error}") from error
