"""`fedpress distil`."""

import json as json_module
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fedpress.cli.options import Debug, RunFolder, settings_options
from fedpress.common.settings import Schema, read
from fedpress.compression.model.distill.settings import StudentSettings

_SCHEMA = Schema({"student": StudentSettings})


@settings_options(_SCHEMA, "epochs", "lr", "temperature", "alpha", "shift", "flip", panel="Training", defaults=True)
def distil(
    given: Mapping[str, Any],
    folder: RunFolder,
    model: Annotated[str, typer.Option(help="The student: one of the workload's models.")],
    out: Annotated[Path | None, typer.Option(help="Output folder; FOLDER-MODEL if not given.")] = None,
    on: Annotated[str, typer.Option(help="Inputs: train, proxy, mnist or folder:PATH.")] = "train",
    holdout: Annotated[float, typer.Option(help="Share of the training examples held out for evaluation.")] = 0.1,
    seed: Annotated[int | None, typer.Option(help="Seed of the random generators; the run's if not given.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files in the folder.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
    _debug: Debug = False,
) -> None:
    """Train a smaller model, or another architecture, with a run's model as its teacher; export and shrink accept it.

    Example: `fedpress distil runs/first --model pocket --epochs 30 --temperature 4 --alpha 0.9`
    """
    from rich.console import Console

    from fedpress.simulations.postprocess.distill import distil_run

    source = folder.resolve()
    target = out or source.parent / f"{source.name}-{model}"
    settings = read(StudentSettings, given, "student.")
    console = Console(stderr=True, quiet=json, highlight=False, soft_wrap=True)
    result = distil_run(
        folder,
        model,
        target,
        settings,
        on=on,
        holdout=holdout,
        seed=seed,
        device=device,
        force=force,
        progress=lambda line: console.print(line, markup=False),
    )
    if json:
        typer.echo(json_module.dumps(result))
        return
    _print(result)
    typer.echo(f"in {target}")


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    student, teacher = result["student"], result["student"]["teacher"]
    table = Table(
        "", "model", "parameters", "held out, %", "test, %", title="teacher and student", title_justify="left"
    )
    for role, model, details, accuracy in (
        ("teacher", teacher["model"], teacher, teacher["accuracy"]),
        ("student", result["config"]["model"], student, result["final"]["accuracy"]),
    ):
        held = student.get("held_out", {}).get(role)
        cells = ("" if score is None else f"{100 * score:.2f}" for score in (held, accuracy))
        table.add_row(role, model, f"{details['parameters']:,}", *cells)
    Console(highlight=False).print(table)
