"""`fedpress runs`."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from fedpress.cli.options import Debug


def runs(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="The folder with the runs' folders.")
    ] = Path("runs"),
    plot: Annotated[
        Path | None, typer.Option(help="Draw accuracy by round and by bytes of all listed runs into this image file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    _debug: Debug = False,
) -> None:
    """List the runs in a folder: workload, rounds, accuracy, and the compression ratio to float32.

    Example: `fedpress runs --plot runs.png`
    """
    from rich.console import Console
    from rich.table import Table

    from fedpress.simulations.completed_run import RunSummary, list_runs
    from fedpress.simulations.plots import plot_runs

    runs = list_runs(folder)
    found = [RunSummary.of(run) for run in runs]
    if plot is not None:
        plot_runs({run.folder.name: run.result for run in runs}, plot)
    if json:
        typer.echo(json_module.dumps([vars(row) for row in found]))
        return
    table = Table("run", "workload", "model", box=None, padding=(0, 2, 0, 0))
    for name in ("rounds", "accuracy", "ratio"):
        table.add_column(name, justify="right")
    for row in found:
        accuracy = "" if row.accuracy is None else f"{row.accuracy:.4f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}"
        table.add_row(row.name, row.workload, row.model, str(row.rounds), accuracy, ratio)
    Console(highlight=False, markup=False).print(table)
