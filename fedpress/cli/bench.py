"""`fedpress bench`: what things cost, side by side in one run."""

import typer

bench = typer.Typer(help="Measure, side by side in one run.", no_args_is_help=True)
