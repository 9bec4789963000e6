"""`fedpress shrink`."""

import json as json_module
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedpress.cli.options import Debug, RunFolder, settings_options
from fedpress.common.settings import Schema, read
from fedpress.compression.model.settings import ShrinkSettings

if TYPE_CHECKING:
    from rich.console import Console

_MAX_CLASSES = 12  # classes; if there are more, they are only in report.json


_SCHEMA = Schema({"shrink": ShrinkSettings})


@settings_options(_SCHEMA, "prune", "by", "factorise", "energy", "share", "tune", panel="Steps", defaults=True)
def shrink(
    given: Mapping[str, Any],
    folder: RunFolder,
    out: Annotated[Path | None, typer.Option(help="Output folder; FOLDER-small if not given.")] = None,
    device: Annotated[str, typer.Option(help="Device for fine-tuning: cpu, cuda or cuda:N.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files in the folder.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
    _debug: Debug = False,
) -> None:
    """Make a run's model smaller: prune channels, factorise, share weights; then fine-tune it.

    Example: `fedpress shrink runs/first --prune 0.5 --by taylor --share 16 --tune 500 --out runs/small`
    """
    # Imported here because torch is slow to import, and --help does not need it.
    from rich.console import Console

    from fedpress.simulations.postprocess.shrink import shrink as make

    settings = read(ShrinkSettings, given, "shrink.")
    source = folder.resolve()
    target = out or source.parent / f"{source.name}-small"
    console = Console(stderr=True, quiet=json, highlight=False)
    report = make(
        folder, target, settings, device=device, force=force, progress=lambda line: console.print(line, markup=False)
    )
    if json:
        typer.echo(json_module.dumps(report))
        return
    _print(report, Console(highlight=False))
    typer.echo(f"in {target}")


def _print(report: dict[str, Any], console: "Console") -> None:
    from rich import box
    from rich.table import Table

    from fedpress.common.units import amount

    table = Table(
        "layer", "weights", "", "parameters", "", "FLOPs", "", title="changes of layers", title_justify="left"
    )
    for row in report["layers"]:
        cells = []
        for measure in ("shape", "parameters", "flops"):
            cells += [_cell(row["before"][measure]), _cell(row["after"][measure])]
        table.add_row(row["layer"], *cells)
    if report["layers"]:
        console.print(table)
    names = list(report["test"]["before"]["classes"])
    for step in report["steps"]:
        title = f"{step['step']}: change in points of accuracy by each layer alone"
        table = Table("layer", "all", title=title, title_justify="left", box=box.SIMPLE, padding=0, pad_edge=False)
        shown = names if len(names) <= _MAX_CLASSES else []
        for name in shown:
            table.add_column(name, justify="right", overflow="fold", min_width=5)
        for row in step["alone"]:
            points = (row["accuracy"], *(row["classes"][name] for name in shown))
            table.add_row(row["layer"], *("" if value is None else f"{100 * value:+.1f}" for value in points))
        console.print(table)
        for layer, reason in step["left"].items():
            part = any(row["layer"] == layer for row in step["alone"])
            console.print(f"{layer}{'' if part else ' left alone'}: {reason}", markup=False)
    table = Table("", "before", "after", title="whole model", title_justify="left")
    before, after = report["before"], report["after"]
    for measure in ("parameters", "flops"):
        table.add_row(measure, f"{before[measure]:,}", f"{after[measure]:,}")
    for measure, key in (("file", "bytes"), ("packed by zstd", "zstd_bytes")):
        table.add_row(measure, amount(before[key]), amount(after[key]))
    for count, times in report["latency_ms"].items():
        table.add_row(f"ms for {count}", f"{times['before']:.3f}", f"{times['after']:.3f}")
    test = report["test"]
    table.add_row("test accuracy", *(f"{test[side]['accuracy']:.4f}" for side in ("before", "after")))
    for name in names if len(names) <= _MAX_CLASSES else []:
        values = (test[side]["classes"][name] for side in ("before", "after"))
        table.add_row(f"  {name}", *("" if value is None else f"{value:.3f}" for value in values))
    console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join("x".join(map(str, shape)) for shape in value)
    return f"{value:,}"
