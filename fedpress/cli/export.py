"""`fedpress export`."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedpress.cli.options import Debug

if TYPE_CHECKING:
    from rich.console import Console


def export(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or one that shrink or distil made.")],
    format: Annotated[
        list[str], typer.Option("--format", help="onnx, executorch or safetensors; again for another one beside it.")
    ],
    int8: Annotated[bool, typer.Option("--int8", help="Weights and activations of 8 bits; float32 beside it.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="The file; FOLDER/export/model.onnx and the like if not given.")
    ] = None,
    examples: Annotated[int, typer.Option(help="Of the test set, to compare with torch on.")] = 2000,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON and nothing else.")] = False,
    _debug: Debug = False,
) -> None:
    """Write a run's model as a file that runs without fedpress, check it against torch, and measure it.

    Example: `fedpress export runs/first --format onnx --int8`
    """
    from rich.console import Console

    from fedpress.simulations.postprocess.export import export_run

    console = Console(stderr=True, quiet=json, highlight=False, soft_wrap=True)
    told = export_run(
        folder,
        format,
        int8=int8,
        out=out,
        examples=examples,
        force=force,
        progress=lambda line: console.print(line, markup=False),
    )
    if json:
        typer.echo(json_module.dumps(told))
        return
    _print(told, Console(highlight=False))


def _print(told: dict[str, Any], console: "Console") -> None:
    from rich.table import Table

    from fedpress.simulations.postprocess.export import slower

    title = f"on {told['examples']:,} test examples; processor time of one example on one thread"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("file", no_wrap=True)
    for name in ("bytes", "test, %", "as torch", "off by", "us", "peak", "model"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in told["rows"]:
        table.add_row(
            f"{row['format']}{' int8' if row['int8'] else ''}",
            f"{row['nbytes']:,}",
            *(f"{100 * row[name]:.2f}" for name in ("accuracy", "agreement")),
            f"{row['difference']:.2g}",
            *_taken(row),
        )
    console.print(table)
    console.print("as torch: % of predictions; off by: largest difference of a score; model: part of the peak")
    for line in slower(told["rows"]):
        console.print(line)
    for row in told["rows"]:
        if "file" in row:
            typer.echo(f"in {row['file']}")


def _taken(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return the cells of what a file takes; empty where that was not measured."""
    from fedpress.common.units import amount

    if row["seconds"] is None:
        return "", "", ""
    return f"{1e6 * row['seconds']:.1f}", amount(row["peak"]), amount(row["peak"] - row["before"])
