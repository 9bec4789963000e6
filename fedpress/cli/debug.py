"""`--debug`, which every command takes: `main` looks for it when a command fails."""

from typing import Annotated

import typer

Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
