"""`fedpress settings` and `fedpress init`."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from fedpress.cli.options import Debug


def settings(
    word: Annotated[str | None, typer.Argument(help="Show only settings that contain this word.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    _debug: Debug = False,
) -> None:
    """List the settings of a run, with their defaults, ranges and descriptions.

    Example: `fedpress settings distillation`
    """
    from rich.console import Console
    from rich.table import Column, Table

    from fedpress.common.errors import SettingError
    from fedpress.settings import RunSettings
    from fedpress.settings.tables import rows

    found = [row for row in rows(RunSettings.schema()) if word is None or word.lower() in " ".join(row).lower()]
    if not found:
        raise SettingError(f"no setting has {word!r} in it: `fedpress settings` lists all")
    if json:
        names = ("setting", "type", "default", "range", "help")
        listed: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in found]
        typer.echo(json_module.dumps(listed))
        return
    table = Table(Column("setting", no_wrap=True), "default", "help (range)", box=None, padding=(0, 2, 0, 0))
    for key, _, default, bounds, description in found:
        table.add_row(key, default, f"{description} ({bounds})" if bounds else description)
    Console(highlight=False, markup=False).print(table)


def init(
    out: Annotated[Path, typer.Argument(help="The output file.")] = Path("fedpress.toml"),
    workload: Annotated[str, typer.Option(help="The workload whose defaults to write.")] = "digits",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    _debug: Debug = False,
) -> None:
    """Write a TOML file of all settings of a simulated run, each with its default and its description.

    Example: `fedpress init run.toml --workload fashion`, then `fedpress simulate --config run.toml`
    """
    from fedpress.common.errors import SettingError
    from fedpress.common.files import prepare_file, replace
    from fedpress.settings.tables import commented
    from fedpress.simulations.settings import resolve, simulation_schema

    if out.exists() and not force:
        raise SettingError(f"{out} exists: name another file, or overwrite it with --force")
    settings = resolve({"workload": workload})
    prepare_file(out)
    replace(out, commented(settings, simulation_schema()).encode(), wait=False)
    typer.echo(f"in {out}")
