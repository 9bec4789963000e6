"""`fedpress export`."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedpress.cli.options import Debug, RunFolder

if TYPE_CHECKING:
    from rich.console import Console


def export(
    folder: RunFolder,
    format: Annotated[
        list[str], typer.Option("--format", help="onnx, executorch or safetensors; may be given several times.")
    ],
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write a file with weights and activations of 8 bits.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Output file; FOLDER/export/model.onnx, for example, if not given.")
    ] = None,
    examples: Annotated[int, typer.Option(help="Number of test examples for the comparison with torch.")] = 2000,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON and nothing else.")] = False,
    _debug: Debug = False,
) -> None:
    """Write a run's model as a file that runs without fedpress, check it against torch, and measure it.

    Example: `fedpress export runs/first --format onnx --int8`
    """
    from rich.console import Console

    from fedpress.simulations.postprocess.export import export_run

    console = Console(stderr=True, quiet=json, highlight=False, soft_wrap=True)
    report = export_run(
        folder,
        format,
        int8=int8,
        out=out,
        examples=examples,
        force=force,
        progress=lambda line: console.print(line, markup=False),
    )
    if json:
        typer.echo(json_module.dumps(report))
        return
    _print(report, Console(highlight=False))


def _print(report: dict[str, Any], console: "Console") -> None:
    from rich.table import Table

    from fedpress.simulations.postprocess.export import slower

    title = f"on {report['examples']:,} test examples; processor time of one example on one thread"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("file", no_wrap=True)
    for name in ("bytes", "test, %", "as torch", "off by", "us", "peak", "model"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report["rows"]:
        table.add_row(
            f"{row['format']}{' int8' if row['int8'] else ''}",
            f"{row['nbytes']:,}",
            *(f"{100 * row[name]:.2f}" for name in ("accuracy", "agreement")),
            f"{row['difference']:.2g}",
            *_resource_cells(row),
        )
    console.print(table)
    console.print("as torch: % of predictions; off by: largest difference of a score; model: part of the peak")
    for line in slower(report["rows"]):
        console.print(line)
    for row in report["rows"]:
        if "file" in row:
            typer.echo(f"in {row['file']}")


def _resource_cells(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return the cells for time and memory; empty if they were not measured."""
    from fedpress.common.units import amount

    if row["seconds"] is None:
        return "", "", ""
    return f"{1e6 * row['seconds']:.1f}", amount(row["peak"]), amount(row["peak"] - row["before"])
