"""`fedpress distil`."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from fedpress.cli.debug import Debug


def distil(
    folder: Annotated[Path, typer.Argument(help="The teacher: a run's folder, or one that shrink or distil made.")],
    model: Annotated[str, typer.Option(help="The student: one of the workload's models.")],
    out: Annotated[Path | None, typer.Option(help="Where it goes; FOLDER-MODEL if not given.")] = None,
    on: Annotated[str, typer.Option(help="What to teach on: train, proxy, mnist or folder:PATH.")] = "train",
    holdout: Annotated[float, typer.Option(help="Share of the training examples that is left out, to judge by.")] = 0.1,
    epochs: Annotated[int, typer.Option(help="Passes over them.")] = 20,
    lr: Annotated[float, typer.Option(help="Greatest learning rate.")] = 3e-3,
    temperature: Annotated[float, typer.Option(help="The higher, the more the less likely answers count.")] = 4.0,
    alpha: Annotated[float, typer.Option(help="Weight of the teacher's answers; the rest is the targets'.")] = 0.9,
    hint: Annotated[str, typer.Option(help="Layers for a hint, TEACHER:STUDENT.")] = "",
    warm: Annotated[bool, typer.Option("--warm", help="Begin with the teacher's layers where shapes allow.")] = False,
    shift: Annotated[int, typer.Option(help="Move pictures by so many pixels at most.")] = 0,
    flip: Annotated[bool, typer.Option("--flip", help="Mirror every other picture.")] = False,
    qat_bits: Annotated[int, typer.Option(help="Round to these bits in the last epochs; 0 for never.")] = 0,
    qat_epochs: Annotated[int, typer.Option(help="How many those are.")] = 3,
    seed: Annotated[int | None, typer.Option(help="Of everything random; the run's if not given.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is in the folder.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
    _debug: Debug = False,
) -> None:
    """Have a run's model teach a smaller one, or one of another kind, into a folder that export and shrink take.

    Example: `fedpress distil runs/first --model mlp --epochs 30 --temperature 4 --alpha 0.9`
    """
    from rich.console import Console

    from fedpress.compression.model.distill import StudentSettings
    from fedpress.simulations.postprocess.distill import distil_run

    whole = folder.resolve()
    place = out or whole.parent / f"{whole.name}-{model}"
    schooling = StudentSettings(
        epochs=epochs,
        lr=lr,
        temperature=temperature,
        alpha=alpha,
        hint=hint,
        warm=warm,
        shift=shift,
        flip=flip,
        qat_bits=qat_bits,
        qat_epochs=qat_epochs,
    )
    progress = Console(stderr=True, quiet=json, highlight=False, soft_wrap=True)
    result = distil_run(
        folder,
        model,
        place,
        schooling,
        on=on,
        holdout=holdout,
        seed=seed,
        device=device,
        force=force,
        say=lambda line: progress.print(line, markup=False),
    )
    if json:
        typer.echo(json_module.dumps(result))
        return
    _print(result)
    typer.echo(f"in {place}")


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    student, teacher = result["student"], result["student"]["teacher"]
    table = Table("", "model", "parameters", "held out, %", "test, %", title="the two of them", title_justify="left")
    for who, model, one, accuracy in (
        ("teacher", teacher["model"], teacher, teacher["accuracy"]),
        ("student", result["config"]["model"], student, result["final"]["accuracy"]),
    ):
        held = student.get("held_out", {}).get(who)
        cells = ("" if score is None else f"{100 * score:.2f}" for score in (held, accuracy))
        table.add_row(who, model, f"{one['parameters']:,}", *cells)
    Console(highlight=False).print(table)
