"""`fedpress init`."""

from pathlib import Path
from typing import Annotated

import typer

from fedpress.cli.debug import Debug


def init(
    out: Annotated[Path, typer.Argument(help="The file that is written.")] = Path("fedpress.toml"),
    workload: Annotated[str, typer.Option(help="The workload whose settings it has.")] = "digits",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    _debug: Debug = False,
) -> None:
    """Write a TOML file of all settings of a simulated run, each with its default and what it is.

    Example: `fedpress init run.toml --workload fashion`, then `fedpress simulate --config run.toml`
    """
    from fedpress.common.errors import SettingError
    from fedpress.settings.tables import commented
    from fedpress.simulations.settings import resolve, simulation_schema

    if out.exists() and not force:
        raise SettingError(f"{out} is there already: name another file, or overwrite it with --force")
    settings = resolve({"workload": workload})
    out.write_text(commented(settings, simulation_schema()), encoding="utf-8")
    typer.echo(f"in {out}")
